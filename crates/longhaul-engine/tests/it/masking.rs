//! Keys do not reach the log through what tools write.

use std::borrow::Cow;
use std::sync::Arc;

use longhaul_engine::{Driven, Models};
use longhaul_model::Model;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::{Limits, ModelChoice};
use longhaul_session::failure::Failure;
use longhaul_session::item::EffectClass;
use longhaul_tools::limits::MAX_OUTPUT_BYTES;
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;

use crate::world::{World, calling, spec};

const KEY: &str = "known-key-of-a-provider";

struct Knowing(ScriptedModel);

impl Models for Knowing {
    fn model(&self, _: &ModelChoice, _: &Limits) -> Result<Arc<dyn Model>, Failure> {
        Ok(Arc::new(self.0.clone()))
    }

    fn mask<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let text = String::from_utf8_lossy(bytes);
        if text.contains(KEY) {
            Cow::Owned(text.replace(KEY, "[masked]").into_bytes())
        } else {
            Cow::Borrowed(bytes)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_tool_prints_is_masked_in_the_result_and_in_what_is_kept_of_it() {
    let long = format!("{KEY}\n{}", "line\n".repeat(MAX_OUTPUT_BYTES));
    let leak = function(spec("leak", EffectClass::Once), move |_, _| {
        let text = long.clone();
        async move { ToolOutput::ok(text) }
    });
    let script = calling(&["leak"]).parse::<ScriptedModel>().unwrap();
    let world = World::with_models(Arc::new(Knowing(script)), Toolbox::empty().with(leak));
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let result = world.results(session).await.remove(0);
    assert!(result.output.starts_with("[masked]"), "{}", &result.output[..40]);
    let digest = result.artifact.unwrap();
    assert!(result.output.contains(&digest.to_hex()), "the output names what is kept");
    let whole = world.engine.store().artifact(digest).await.unwrap().unwrap();
    assert!(String::from_utf8(whole).unwrap().starts_with("[masked]\n"));
    let log = world.log(session).await;
    let kept = log.iter().filter_map(|entry| entry.content.as_ref());
    assert!(!kept.into_iter().any(|content| String::from_utf8_lossy(&content.bytes).contains(KEY)));
}
