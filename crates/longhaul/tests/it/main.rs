//! The program, run as a person or a script runs it: what it prints, what it leaves, how it ends.

#[cfg(test)]
mod attachments;
#[cfg(test)]
mod background;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod crash_limit;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod forks;
#[cfg(test)]
mod full;
#[cfg(test)]
mod goals;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod long;
#[cfg(test)]
mod long_goals;
#[cfg(test)]
mod managing;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod manifest_check;
#[cfg(test)]
mod network;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod siege;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod spent;
#[cfg(test)]
mod spoken;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod transfer;
#[cfg(test)]
mod wires;
#[cfg(test)]
mod workers;
#[cfg(test)]
mod world;
