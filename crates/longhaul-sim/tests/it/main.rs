//! The simulator itself: its store keeps the contract, its runs are repeatable, and it notices.

#[cfg(test)]
mod budget;
#[cfg(test)]
mod flaws;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod store;
