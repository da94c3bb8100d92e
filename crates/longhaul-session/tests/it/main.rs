//! The tests of the session machine, one module for each thing it promises.

mod driver;
mod properties;
mod random;
mod table;
