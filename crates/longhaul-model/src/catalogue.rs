//! What is known of models by their names: windows, limits, what they can do, what they cost and where. The
//! facts are in a file that is compiled in, and say where they are from. What a session makes of them is left to
//! whoever configures it, and a name that is not here is no error: most models are not.

use std::sync::LazyLock;

use longhaul_session::agent::ImageLimits;
use longhaul_session::prices::{Prices, Rates, Tier};
use serde::Deserialize;

const FILE: &str = include_str!("catalogue/models.toml");

static KNOWN: LazyLock<File> =
    LazyLock::new(|| toml::from_str(FILE).expect("the file is compiled in, and a test reads it"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    images: Vec<ImageFacts>,
    model: Vec<Entry>,
}

/// What is known of the images that models of some families take.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFacts {
    /// What the names of these models begin with.
    pub families: Vec<String>,
    /// Where the limits are from.
    pub source: Source,
    /// The limits.
    pub limits: ImageLimits,
}

/// What is known of one model. What is not known is absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its names, as its maker writes them. One that ends with `*` stands for all that begin so.
    pub names: Vec<String>,
    /// Where the window and the limit of output are from.
    pub source: Source,
    /// The day for which the source gives them, as year, month, day.
    pub as_of: Option<String>,
    /// How many tokens it can take in all.
    pub window_tokens: Option<u64>,
    /// The most tokens of one answer.
    pub max_output_tokens: Option<u64>,
    /// What it can do. This was not looked up one by one, whatever the source.
    pub capabilities: Vec<Capability>,
    /// What it costs, a list for each group of places.
    #[serde(default)]
    pub prices: Vec<PriceList>,
}

/// Where facts are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A page of the vendor.
    VendorPage,
    /// What somebody else published, such as one who sells the model on.
    Search,
    /// Nowhere that was looked up.
    Unverified,
}

/// Something a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// It calls tools.
    Tools,
    /// It sees images.
    Images,
    /// It reads documents.
    Files,
    /// It thinks before it answers.
    Reasoning,
    /// It answers in the form of a schema.
    StructuredOutput,
    /// It answers in a stream.
    Streaming,
}

/// What a model costs at some places.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Where the prices are from.
    pub source: Source,
    /// The day for which the source gives them, as year, month, day.
    pub as_of: Option<String>,
    hosts: Vec<String>,
    rates: Rates,
    #[serde(default)]
    tiers: Vec<Tier>,
}

impl Entry {
    /// Tells whether the model is known to be able to do something.
    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Returns what the model costs where an address is. A server of one's own, and one that is not listed,
    /// has prices of its own.
    #[must_use]
    pub fn prices_at(&self, url: &str) -> Option<Prices> {
        let host = host_of(url);
        let list = self.prices.iter().find(|list| list.hosts.contains(&host));
        list.map(PriceList::prices)
    }
}

impl PriceList {
    /// Returns the prices.
    #[must_use]
    pub fn prices(&self) -> Prices {
        Prices { rates: self.rates, tiers: self.tiers.clone() }
    }
}

/// Finds a model by name: exactly, else as a dated variant, else as one of a family. What stands before a
/// slash, as resellers write it, does not count, and dots are as good as hyphens.
///
/// A name with a colon is another offer of a model, such as a free one; it is found only where it is listed.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    let wanted = plain(name);
    let named = |fits: &dyn Fn(&str) -> bool| {
        KNOWN.model.iter().find(|entry| entry.names.iter().any(|name| fits(&plain(name))))
    };
    let family = || {
        let families = KNOWN.model.iter().flat_map(|entry| {
            let prefixes = entry.names.iter().filter_map(|name| name.strip_suffix('*'));
            prefixes.map(move |prefix| (plain(prefix), entry))
        });
        let fitting = families.filter(|(prefix, _)| wanted.starts_with(prefix.as_str()));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, entry)| entry)
    };
    named(&|name| name == wanted)
        .or_else(|| named(&|name| wanted.strip_prefix(name).is_some_and(is_variant)))
        .or_else(family)
}

/// Returns all entries, in the order of the file.
#[must_use]
pub fn entries() -> &'static [Entry] {
    &KNOWN.model
}

/// Returns what is known of the images that the model of a name takes.
#[must_use]
pub fn images(name: &str) -> Option<&'static ImageFacts> {
    let wanted = plain(name);
    let is_of = |facts: &&ImageFacts| facts.families.iter().any(|family| wanted.starts_with(&plain(family)));
    KNOWN.images.iter().find(is_of)
}

fn plain(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.trim().to_ascii_lowercase().replace('.', "-")
}

/// Tells whether what follows a name says only which edition it is: a date, or a word for the newest.
fn is_variant(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix(['-', '@']) else { return false };
    let is_word = |part: &str| ["latest", "preview", "exp"].contains(&part);
    let digits: Vec<usize> = rest
        .split('-')
        .filter(|part| !is_word(part))
        .map(|part| if part.bytes().all(|byte| byte.is_ascii_digit()) { part.len() } else { 0 })
        .collect();
    // 20250929, 2025-09-29, 0905, 05-06, 05-2026 and 001.
    matches!(digits[..], [] | [8 | 4 | 3] | [4, 2, 2] | [2, 2 | 4])
}

/// Returns the host of an address, without its port.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default().to_ascii_lowercase()
}
