//! The simulator itself: its store keeps the contract, its runs are repeatable, and it notices.

mod budget;
mod flaws;
mod seeds;
mod store;
