//! The tests of the session machine, one module for each thing it promises.

mod budgets;
mod commands;
mod context;
mod driver;
mod goals;
mod golden;
mod ledger;
mod log;
mod lost;
mod owed;
mod prices;
mod prompts;
mod properties;
mod random;
mod search;
mod specimens;
mod table;
mod tail;
mod terms;
mod window;
