//! What a call of a model may have cost that was lost with its worker. Whether one can have been under way is derived
//! from the log (`owed`); what it used nobody knows.

use longhaul_session::bound;
use longhaul_session::id::Timestamp;
use longhaul_session::owed::{LostCall, lost_call};
use longhaul_session::usage::Usage;

use crate::journal::Journal;
use crate::prompt;
use crate::runner::seen;

/// Estimates what is lost with the owner of a session: the request, or under a hard budget all that the call can have
/// cost, so that the budget holds also then.
pub(crate) fn estimate(journal: &Journal, now: Timestamp) -> Usage {
    let (state, context) = (&journal.state, journal.loaded_context());
    let Some(context) = context else { return Usage::default() };
    let limits = context.configuration().map(|configured| configured.limits.clone()).unwrap_or_default();
    let Some(lost) = lost_call(state, &seen(state, Some(context), now, 0), &limits) else {
        return Usage::default();
    };
    if state.works_for().is_some() && state.goal.as_ref().is_some_and(|goal| goal.budget.hard) {
        let (answer, summary) =
            (|| bound::next_call(state, context), || prompt::summary_bound(state, context));
        return match lost {
            LostCall::Answer => answer(),
            LostCall::Summary => summary(),
            LostCall::Either => bound::either(answer(), summary()),
        };
    }
    // Never nothing, also where the message was redacted since and the prompt is to be made anew.
    let estimate = Usage { input: context.outlook().estimate.tokens.max(1), ..Usage::default() };
    let prices = context.configuration().and_then(|configured| match (lost, &configured.summariser) {
        (LostCall::Summary, Some(summariser)) => summariser.prices.as_ref(),
        (LostCall::Answer | LostCall::Summary | LostCall::Either, _) => configured.model.prices.as_ref(),
    });
    prices.map_or(estimate, |prices| prices.priced(estimate))
}
