//! What the store promises, checked from outside.

#[cfg(test)]
mod sqlite;
