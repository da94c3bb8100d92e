//! The models this program can call.

use std::path::Path;
use std::sync::Arc;

use longhaul_engine::Models;
use longhaul_model::Model;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::{Limits, ModelChoice};
use longhaul_session::failure::{Failure, FailureClass};

/// The provider name of scripted models.
pub(crate) const SCRIPTED: &str = "scripted";

/// All models of this program.
pub(crate) struct AllModels;

impl Models for AllModels {
    fn model(&self, choice: &ModelChoice, _: &Limits) -> Result<Arc<dyn Model>, Failure> {
        let failed = |message| Failure { class: FailureClass::Preparation, message };
        if choice.provider != SCRIPTED {
            let known =
                format!("this program knows no provider {:?}; it knows {SCRIPTED:?}", choice.provider);
            return Err(failed(known));
        }
        match ScriptedModel::from_path(Path::new(&choice.name)) {
            Ok(model) => Ok(Arc::new(model)),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
