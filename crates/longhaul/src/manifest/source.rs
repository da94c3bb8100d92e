//! A parsed manifest: where things stand in it, what is refused before anything is read, and what is
//! never shown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;
use super::reader::Node;

/// Parts of a manifest that are thought of, and mean nothing yet.
const NOT_YET: [&[&str]; 4] = [&["hooks"], &["mcp"], &["sandbox"], &["tools", "mcp"]];

/// A parsed manifest, where places are looked up.
pub(super) struct Source<'t> {
    root: Node<'t>,
}

impl<'t> Source<'t> {
    /// Takes a parsed document.
    pub(super) fn new(root: Spanned<DeTable<'t>>) -> Self {
        Source { root: Spanned::new(root.span(), DeValue::Table(root.into_inner())) }
    }

    /// Returns what stands in a table, as if it were all there is: its places stay what they are.
    pub(super) fn below(&self, table: &str) -> Option<Self> {
        self.node(&[table]).map(|node| Source { root: node.clone() })
    }

    pub(super) fn root(&self) -> &Node<'t> {
        &self.root
    }

    /// Finds a value by the keys that lead to it; an element of an array by its number.
    pub(super) fn node(&self, path: &[&str]) -> Option<&Node<'t>> {
        path.iter().try_fold(&self.root, |node, key| match node.get_ref().as_array() {
            Some(nodes) => nodes.get(key.parse::<usize>().ok()?),
            None => node.get_ref().as_table()?.get(*key),
        })
    }

    /// Returns the table at a path, if there is one.
    pub(super) fn table(&self, path: &[&str]) -> Option<&DeTable<'t>> {
        self.node(path)?.get_ref().as_table()
    }

    /// Returns the place of a value; of what there is of its path, where it is not there.
    pub(super) fn value(&self, path: &[&str]) -> Range<usize> {
        let known = (1..=path.len()).rev().find_map(|length| self.node(&path[..length]));
        known.map_or(0..0, Spanned::span)
    }

    /// Returns the place of a key.
    pub(super) fn key(&self, path: &[&str]) -> Range<usize> {
        let Some((last, parents)) = path.split_last() else { return 0..0 };
        let key = self.table(parents).and_then(|table| table.get_key_value(*last));
        key.map_or_else(|| self.value(path), |(key, _)| key.span())
    }

    /// Takes out all keys but one.
    pub(super) fn keep_only(&mut self, key: &str) {
        if let DeValue::Table(table) = self.root.get_mut() {
            let kept = table.remove_entry(key);
            table.clear();
            table.extend(kept);
        }
    }

    /// Takes out what is refused as a whole, and says why.
    pub(super) fn refuse(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for path in NOT_YET {
            faults.extend(self.take_out(path, |_| true).map(|(key, _)| Fault {
                span: key,
                what: format!("`{}` has no meaning yet", path.join(".")),
                hint: "remove it; this version of Longhaul would not do what it says".to_owned(),
            }));
        }
        for path in [&["model", "key"][..], &["compaction", "model", "key"]] {
            let key = self.take_out(path, |value| !value.is_table());
            faults.extend(key.map(|(_, value)| Fault {
                span: value,
                what: "a key does not belong in this file".to_owned(),
                hint: "say where it is: key = { env = \"OPENAI_API_KEY\" } or key = { file = \"~/.config/model.key\" }"
                    .to_owned(),
            }));
        }
        faults
    }

    /// Takes out a value that is so, and returns the places of its key and of itself.
    fn take_out(
        &mut self,
        path: &[&str],
        is_so: impl Fn(&DeValue<'_>) -> bool,
    ) -> Option<(Range<usize>, Range<usize>)> {
        let (last, parents) = path.split_last()?;
        if !is_so(self.node(path)?.get_ref()) {
            return None;
        }
        let mut node = &mut self.root;
        for key in parents {
            let DeValue::Table(table) = node.get_mut() else { return None };
            node = table.get_mut(*key)?;
        }
        let DeValue::Table(table) = node.get_mut() else { return None };
        let (key, value) = table.remove_entry(*last)?;
        Some((key.span(), value.span()))
    }

    /// Returns the places of what may be a key and is never shown.
    pub(super) fn hidden(&self) -> Vec<Range<usize>> {
        let mut hidden = self.hidden_in_model();
        hidden.extend(self.below("compaction").iter().flat_map(Source::hidden_in_model));
        hidden
    }

    fn hidden_in_model(&self) -> Vec<Range<usize>> {
        let is_place = |name: &str, node: &Node<'_>| {
            let text = node.get_ref().as_str();
            text.is_some_and(|text| name == "file" || (name == "env" && is_variable(text)))
        };
        let key = self.node(&["model", "key"]).filter(|node| !node.get_ref().is_table());
        let in_key = self.table(&["model", "key"]).into_iter().flatten();
        let in_key = in_key.filter(|(name, node)| !is_place(name.get_ref(), node)).map(|(_, node)| node);
        let headers = self.table(&["model", "headers"]).into_iter().flat_map(DeTable::values);
        let has_name = |url: &&Node<'_>| url.get_ref().as_str().is_some_and(|url| url.contains('@'));
        let url = self.node(&["model", "base_url"]).filter(has_name);
        // An address or what is meant to be a variable's name: either may hold a password.
        let store = self.table(&["store"]).into_iter().flatten();
        let store = store.filter(|(name, node)| !is_place(name.get_ref(), node) && name.get_ref() != "path");
        let store = store.map(|(_, node)| node);
        key.into_iter().chain(in_key).chain(headers).chain(url).chain(store).map(Spanned::span).collect()
    }
}

/// Tells whether a variable of the environment can have this name.
pub(super) fn is_variable(name: &str) -> bool {
    let letters = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    letters(name) && name.starts_with(|first: char| !first.is_ascii_digit())
}
