//! What a session has spent, for people: in a phrase, and as a table of what it was spent on. Where the numbers
//! come from is left to the ledger.

use std::fmt::Write as _;

use longhaul_session::agent::ModelChoice;
use longhaul_session::ledger::{Ledger, ModelSpent, Spent};
use longhaul_session::usage::Totals;

use crate::providers::Provider;
use crate::summary;

/// A column of numbers.
struct Column {
    name: &'static str,
    /// What stands there.
    of: fn(&Spent) -> u64,
    /// It is left out where it is empty: not all providers have it.
    optional: bool,
    write: fn(u64) -> String,
}

impl Column {
    const fn tokens(name: &'static str, of: fn(&Spent) -> u64) -> Self {
        Column { name, of, optional: false, write: summary::tokens }
    }

    const fn optional(name: &'static str, of: fn(&Spent) -> u64) -> Self {
        Column { optional: true, ..Column::tokens(name, of) }
    }

    const fn counted(name: &'static str, of: fn(&Spent) -> u64) -> Self {
        Column { write: |number| number.to_string(), ..Column::tokens(name, of) }
    }
}

const COLUMNS: [Column; 7] = [
    Column::counted("calls", |spent| spent.calls),
    Column::counted("attempts", |spent| spent.attempts),
    Column::tokens("uncached", |spent| spent.totals.measured.uncached_input()),
    Column::optional("cached", |spent| spent.totals.measured.cached_input),
    Column::optional("written", |spent| spent.totals.measured.cache_write),
    Column::tokens("output", |spent| spent.totals.measured.output),
    Column::optional("reasoning", |spent| spent.totals.measured.reasoning),
];

/// Says in a phrase what was spent: tokens, cost and time. Of a played script it says no cost.
pub(crate) fn phrase(ledger: &Ledger) -> String {
    worded(&ledger.total.totals, &Cost::of(&ledger.total, ledger))
}

/// Says the same at the end of a run without reading the log: whether prices are known, the newest configuration
/// says for all.
pub(crate) fn last_phrase(totals: &Totals, model: Option<&ModelChoice>) -> String {
    let is_played = model.is_some_and(|model| model.provider == Provider::Scripted.name());
    let is_priced = model.is_some_and(|model| model.prices.is_some());
    let cost = match totals.measured.cost_micros {
        0 if is_played || totals.measured.tokens() == 0 => Cost::Nothing,
        0 if !is_priced => Cost::Unknown,
        micros => Cost::Known(micros),
    };
    worded(totals, &cost)
}

fn worded(totals: &Totals, cost: &Cost) -> String {
    let (input, output) = (summary::tokens(totals.measured.input), summary::tokens(totals.measured.output));
    let work = summary::duration(totals.active_ms);
    format!("{input} in, {output} out{}, {work} of work", cost.in_phrase())
}

/// What several sessions have spent together. Their states say it; which prices are known they do not.
#[derive(Default)]
pub(crate) struct Together {
    sessions: u64,
    forks: u64,
    without_cost: u64,
    totals: Totals,
}

impl Together {
    /// Adds what a session has spent.
    pub(crate) fn add(&mut self, totals: &Totals, is_fork: bool) {
        self.sessions += 1;
        self.forks += u64::from(is_fork);
        self.without_cost += u64::from(totals.measured.tokens() > 0 && totals.measured.cost_micros == 0);
        self.totals += *totals;
    }

    /// Says it in a line; nothing of a session alone.
    pub(crate) fn line(&self) -> Option<String> {
        let Totals { measured, estimated, .. } = &self.totals;
        if self.sessions < 2 {
            return None;
        }
        let cost = if measured.cost_micros > 0 { Cost::Known(measured.cost_micros) } else { Cost::Nothing };
        let mut line = format!("{} sessions: {}", self.sessions, worded(&self.totals, &cost));
        if self.without_cost > 0 {
            write!(line, "; no cost is known of {}", self.without_cost).ok();
        }
        if !estimated.is_zero() {
            write!(line, "; about {} tokens more", summary::tokens(estimated.tokens())).ok();
            if estimated.cost_micros > 0 {
                write!(line, ", {},", summary::dollars(estimated.cost_micros)).ok();
            }
            line.push_str(" lost with workers");
        }
        if self.forks > 0 {
            let forks = summary::count(self.forks, "fork");
            write!(line, "; of {forks}, also what the origin had spent before").ok();
        }
        Some(line)
    }
}

/// Says what was spent on what, where there is more to say than the phrase does; one line for each.
pub(crate) fn table(ledger: &Ledger) -> Vec<String> {
    let rows = rows(ledger);
    let has = |column: &&Column| !column.optional || rows.iter().any(|(_, spent)| (column.of)(spent) > 0);
    let columns: Vec<&Column> = COLUMNS.iter().filter(has).collect();
    if rows.len() == 1 && !columns.iter().any(|column| column.optional) {
        return Vec::new();
    }
    let costs: Vec<String> = rows.iter().map(|(_, spent)| Cost::of(spent, ledger).in_table()).collect();
    let with_cost = costs.iter().any(|cost| !cost.is_empty());
    let mut heading = vec![String::new()];
    heading.extend(columns.iter().map(|column| column.name.to_owned()));
    heading.extend(with_cost.then(|| "cost".to_owned()));
    heading.push("work".to_owned());
    let mut lines = vec![heading];
    for ((name, spent), cost) in rows.iter().zip(costs) {
        let mut line = vec![name.clone()];
        line.extend(columns.iter().map(|column| (column.write)((column.of)(spent))));
        line.extend(with_cost.then_some(cost));
        line.push(summary::duration(spent.totals.active_ms));
        lines.push(line);
    }
    aligned(&lines)
}

/// All, by goal, by model where there are several, and what did not become a step.
fn rows(ledger: &Ledger) -> Vec<(String, Spent)> {
    let mut rows = vec![("all".to_owned(), ledger.total)];
    if let Some(goal) = ledger.present_goal() {
        rows.push(("this goal".to_owned(), goal.spent));
    }
    let others = ledger.goals.iter().filter(|goal| goal.goal.is_some());
    let present = ledger.present_goal().map(|goal| goal.goal);
    let mut earlier = Spent::default();
    others.filter(|goal| Some(goal.goal) != present).for_each(|goal| earlier += goal.spent);
    rows.push(("earlier goals".to_owned(), earlier));
    if let Some(none) = ledger.goals.iter().find(|goal| goal.goal.is_none() && ledger.goals.len() > 1) {
        rows.push(("no goal".to_owned(), none.spent));
    }
    if ledger.models.len() > 1 {
        rows.extend(ledger.models.iter().map(|model| (name(model), model.spent)));
    }
    let work = &ledger.work;
    // Its own row says that it is an estimate, and no other holds it.
    let estimated = Totals { measured: work.lost.totals.estimated, ..Totals::default() };
    let lost = Spent { totals: estimated, ..work.lost };
    for (name, spent) in [
        ("failed", work.failed),
        ("compactions", work.compactions),
        ("obsolete", work.obsolete),
        ("interrupted", work.interrupted),
        ("lost, about", lost),
    ] {
        rows.push((name.to_owned(), spent));
    }
    let all = rows.remove(0);
    rows.retain(|(_, spent)| spent.attempts > 0);
    rows.insert(0, all);
    rows
}

fn name(model: &ModelSpent) -> String {
    match &model.model {
        Some(model) => summary::one_line(&format!("{} ({})", model.name, model.provider)),
        None => "unknown model".to_owned(),
    }
}

/// What was paid, as far as that is known.
enum Cost {
    /// Nothing, or a script was played.
    Nothing,
    Known(u64),
    Unknown,
    /// So much, and besides for so many hundredths of the tokens what nobody knows.
    Partly(u64, u128),
}

impl Cost {
    fn of(spent: &Spent, ledger: &Ledger) -> Self {
        let (micros, tokens) = (spent.totals.measured.cost_micros, spent.totals.measured.tokens());
        let is_played = |model: &ModelSpent| {
            model.model.as_ref().is_some_and(|model| model.provider == Provider::Scripted.name())
        };
        if tokens == 0 || micros == 0 && ledger.models.iter().all(is_played) {
            Cost::Nothing
        } else if spent.unpriced_tokens == 0 {
            Cost::Known(micros)
        } else if micros == 0 {
            Cost::Unknown
        } else {
            Cost::Partly(micros, (u128::from(spent.unpriced_tokens) * 100).div_ceil(u128::from(tokens)))
        }
    }

    fn in_phrase(&self) -> String {
        match self {
            Cost::Nothing => String::new(),
            Cost::Known(micros) => format!(", {}", summary::dollars(*micros)),
            Cost::Unknown => ", cost unknown".to_owned(),
            Cost::Partly(micros, percent) => {
                format!(", {} and {percent} % of the tokens at an unknown price", summary::dollars(*micros))
            }
        }
    }

    fn in_table(&self) -> String {
        match self {
            Cost::Nothing => String::new(),
            Cost::Known(micros) => summary::dollars(*micros),
            Cost::Unknown => "unknown".to_owned(),
            Cost::Partly(micros, _) => format!("{} + ?", summary::dollars(*micros)),
        }
    }
}

/// Aligns the cells of lines: names to the left, and so the last ones, the others to the right.
fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| lines.iter().map(|line| console::measure_text_width(&line[column])).max();
    let last = lines[0].len() - 1;
    let mut texts = Vec::new();
    for line in lines {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            let gap = " ".repeat(width(column).unwrap_or(0) - console::measure_text_width(cell));
            let (before, after) = if column == 0 { ("", gap.as_str()) } else { (gap.as_str(), "") };
            let before = if column == last { "" } else { before };
            let between = if column == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            write!(text, "{between}{before}{cell}{after}").ok();
        }
        texts.push(text.trim_end().to_owned());
    }
    texts
}

#[cfg(test)]
mod tests {
    use longhaul_session::ledger::ModelName;
    use longhaul_session::usage::Usage;

    use super::*;

    /// A ledger of two models: what the first has spent has a price.
    fn ledger(provider: &str, priced: Usage, unpriced: Usage) -> Ledger {
        let of = |usage: Usage, unpriced_tokens| Spent {
            totals: Totals { measured: usage, active_ms: 61_000, ..Totals::default() },
            unpriced_tokens,
            calls: 1,
            attempts: 2,
        };
        let model = |name: &str, spent| {
            let (provider, name) = (provider.to_owned(), name.to_owned());
            ModelSpent { model: Some(ModelName { provider, name }), spent }
        };
        let mut ledger = Ledger::default();
        ledger.models = vec![model("large", of(priced, 0)), model("small", of(unpriced, unpriced.tokens()))];
        ledger.total = ledger.models.iter().map(|model| model.spent).sum();
        ledger
    }

    #[test]
    fn a_price_that_is_not_known_is_said_and_for_how_much() {
        let tokens = |input, cost_micros| Usage { input, cost_micros, ..Usage::default() };
        for (provider, priced, unpriced, said) in [
            ("openai", tokens(700, 42_700), tokens(0, 0), "700 in, 0 out, $0.0427, 2 min 2 s of work"),
            ("openai", tokens(0, 0), tokens(300, 0), "300 in, 0 out, cost unknown, 2 min 2 s of work"),
            (
                "openai",
                tokens(700, 42_700),
                tokens(300, 0),
                "1.0k in, 0 out, $0.0427 and 30 % of the tokens at an unknown price, 2 min 2 s of work",
            ),
            ("openai", tokens(700, 0), tokens(0, 0), "700 in, 0 out, $0.00, 2 min 2 s of work"),
            ("openai", tokens(0, 0), tokens(0, 0), "0 in, 0 out, 2 min 2 s of work"),
            ("scripted", tokens(0, 0), tokens(300, 0), "300 in, 0 out, 2 min 2 s of work"),
        ] {
            assert_eq!(phrase(&ledger(provider, priced, unpriced)), said);
        }
    }

    #[test]
    fn what_sessions_have_spent_together_says_what_is_not_known_and_what_is_estimated() {
        let of = |input, cost_micros| {
            let measured = Usage { input, output: 20, cost_micros, ..Usage::default() };
            Totals { measured, active_ms: 1_000, ..Totals::default() }
        };
        let mut together = Together::default();
        together.add(&of(1_000, 42_700), false);
        assert_eq!(together.line(), None);
        together.add(&Totals::default(), false);
        assert_eq!(together.line().unwrap(), "2 sessions: 1.0k in, 20 out, $0.0427, 1.0 s of work");
        together.add(&of(500, 0), true);
        together
            .add(&Totals::of_lost(Usage { input: 3_000, cost_micros: 90_000, ..Usage::default() }), false);
        assert_eq!(
            together.line().unwrap(),
            "4 sessions: 1.5k in, 40 out, $0.0427, 2.0 s of work; no cost is known of 1; about 3.0k tokens more, $0.09, \
             lost with workers; of 1 fork, also what the origin had spent before"
        );
    }

    #[test]
    fn the_table_has_the_columns_that_say_something() {
        let cached =
            Usage { input: 9_000, cached_input: 8_000, output: 70, cost_micros: 42_700, ..Usage::default() };
        let unpriced = Usage { input: 300, output: 5, ..Usage::default() };
        assert_eq!(
            table(&ledger("openai", cached, unpriced)),
            [
                "                calls  attempts  uncached  cached  output         cost  work",
                "all                 2         4      1.3k    8.0k      75  $0.0427 + ?  2 min 2 s",
                "large (openai)      1         2      1.0k    8.0k      70      $0.0427  1 min 1 s",
                "small (openai)      1         2       300       0       5      unknown  1 min 1 s",
            ]
        );
    }
}
