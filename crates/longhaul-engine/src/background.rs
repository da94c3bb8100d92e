//! Answers that a provider makes in the background: named in the log as soon as they begin, so that the next
//! runner picks them up, and ended at the provider when nobody will.

use longhaul_session::command::{Basis, OwnerAction, Refusal};

use crate::Error;
use crate::limits::CANCEL_RESPONSE_MS;
use crate::runner::{Equipment, News, Runner};

impl Runner {
    /// Returns the answer that is being made for this attempt already.
    pub(crate) fn begun_before(&self, equipment: &Equipment) -> Option<String> {
        self.state().response_id.clone().filter(|_| equipment.resumable)
    }

    /// Commits the provider's name for an answer that has just begun. It is not committed where the next
    /// runner would ask another provider for it.
    pub(crate) async fn record_response(
        &mut self,
        equipment: &Equipment,
        basis: Basis,
        response_id: &str,
        is_summary: bool,
    ) -> Result<News, Error> {
        let known = self.state().response_id.as_deref() == Some(response_id);
        if !equipment.resumable || known {
            return Ok(News::None);
        }
        let (response_id, configured_at) = (response_id.to_owned(), equipment.configured_at);
        let action = OwnerAction::RecordResponse { basis, response_id, is_summary, configured_at };
        match self.commit(action).await? {
            Ok(()) => Ok(News::None),
            Err(Refusal::Invalid(why)) => {
                tracing::warn!(session = %self.session(), why, "the answer cannot be picked up again");
                Ok(News::None)
            }
            Err(_) => Ok(News::Obsolete),
        }
    }

    /// Ends an answer that has become obsolete. One that the log still names is left to whoever goes on with
    /// the session: a runner of another epoch, or the end of an interruption.
    pub(crate) async fn drop_response(&mut self, equipment: &Equipment, response_id: &str) {
        if equipment.resumable && self.state().response_id.as_deref() != Some(response_id) {
            self.cancel_response(equipment, response_id).await;
        }
    }

    /// Ends the answer that the log names, before an entry after which nobody would pick it up.
    pub(crate) async fn cancel_recorded(&mut self) -> Result<(), Error> {
        let Some(response_id) = self.state().response_id.clone() else { return Ok(()) };
        match self.equip().await? {
            Ok(equipment) => self.cancel_response(&equipment, &response_id).await,
            Err(failure) => {
                let why = failure.message;
                tracing::warn!(session = %self.session(), response_id, why, "the answer was not cancelled");
            }
        }
        Ok(())
    }

    /// The best that can be done in a short time: what the provider has made is paid in any case.
    async fn cancel_response(&mut self, equipment: &Equipment, response_id: &str) {
        let session = self.session();
        let cancelled = tokio::select! {
            biased;
            () = self.tenure.over() => return,
            cancelled = equipment.model.cancel(response_id) => cancelled.map_err(|error| error.message),
            () = self.engine.host.sleep_ms(CANCEL_RESPONSE_MS) => Err("it has no answer".to_owned()),
        };
        match cancelled {
            Ok(()) => tracing::info!(%session, response_id, "the answer was cancelled at the provider"),
            Err(why) => {
                tracing::warn!(%session, response_id, why, "the answer was not cancelled at the provider");
            }
        }
    }
}
