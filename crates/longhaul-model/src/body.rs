//! How the JSON body of a request is put together: the fields that stay the same first, so that two
//! requests of one conversation begin alike for as long as possible. Which fields there are is left to
//! each wire.

use serde::Serialize;
use serde_json::{Map, Value};

/// The fields of a body but for the conversation, in the order they were first set.
#[derive(Default)]
pub(crate) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Sets a field, in its old place if it has one.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|(it, _)| it == name) {
            Some((_, kept)) => *kept = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Sets the parameters that override all other fields.
    pub(crate) fn override_with(&mut self, parameters: &Map<String, Value>) {
        for (name, value) in parameters {
            self.set(name, value.clone());
        }
    }

    /// Writes the fields that are not null, without the closing brace.
    pub(crate) fn begin(&self) -> Vec<u8> {
        let mut bytes = vec![b'{'];
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_null()) {
            begin_field(&mut bytes, name);
            write_json(&mut bytes, value);
        }
        bytes
    }
}

/// Writes the name of the next field.
pub(crate) fn begin_field(bytes: &mut Vec<u8>, name: &str) {
    separate(bytes, b'{');
    write_json(bytes, name);
    bytes.push(b':');
}

/// Writes a comma, unless nothing comes before it but the opening bracket.
pub(crate) fn separate(bytes: &mut Vec<u8>, opening: u8) {
    if bytes.last() != Some(&opening) {
        bytes.push(b',');
    }
}

/// Writes a value or text.
pub(crate) fn write_json(bytes: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(bytes, value).expect("values and texts are always JSON");
}
