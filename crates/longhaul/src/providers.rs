//! The providers this program knows by name: how each is spoken to, where it is, and under which variable
//! people keep its key. Calling them is left to [`crate::models`].

use longhaul_session::agent::{KeySource, ModelChoice};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::environment;

/// Who serves a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum Provider {
    OpenaiChat,
    OpenaiResponses,
    Anthropic,
    Gemini,
    Openrouter,
    Groq,
    Xai,
    Mistral,
    Deepseek,
    Azure,
    Ollama,
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    LmStudio,
    Vllm,
    Scripted,
}

/// How a provider is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Chat,
    Responses,
    Anthropic,
    Gemini,
    /// Nobody is spoken to: a script is played.
    Scripted,
}

/// Where a provider is when nothing else is said.
struct Usual {
    name: &'static str,
    wire: Wire,
    /// Where the API begins; `None`: everyone has an address of their own.
    url: Option<&'static str>,
    /// The host that may be sent the key of the variables, with all below it.
    host: &'static str,
    /// Where people keep the key, the first that is set; without any, none is needed.
    variables: &'static [&'static str],
}

impl Provider {
    pub(crate) const ALL: [Provider; 15] = [
        Provider::OpenaiChat,
        Provider::OpenaiResponses,
        Provider::Anthropic,
        Provider::Gemini,
        Provider::Openrouter,
        Provider::Groq,
        Provider::Xai,
        Provider::Mistral,
        Provider::Deepseek,
        Provider::Azure,
        Provider::Ollama,
        Provider::LlamaCpp,
        Provider::LmStudio,
        Provider::Vllm,
        Provider::Scripted,
    ];

    /// Finds a provider by its name.
    pub(crate) fn named(name: &str) -> Option<Provider> {
        Provider::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// Finds a provider of language models by its name, or says which there are.
    pub(crate) fn served(name: &str) -> Result<Provider, String> {
        let served = |provider: &Provider| *provider != Provider::Scripted;
        Provider::named(name).filter(served).ok_or_else(|| {
            let names: Vec<&str> = Provider::ALL.iter().filter(|it| served(it)).map(|it| it.name()).collect();
            format!("there is {}", names.join(", "))
        })
    }

    /// Returns its name in manifests and sessions.
    pub(crate) fn name(self) -> &'static str {
        self.usual().name
    }

    /// Returns how it is spoken to.
    pub(crate) fn wire(self) -> Wire {
        self.usual().wire
    }

    /// Returns where its API begins; `None`: everyone has an address of their own.
    pub(crate) fn url(self) -> Option<&'static str> {
        self.usual().url
    }

    fn usual(self) -> Usual {
        let chat =
            |name, url, host, variables| Usual { name, wire: Wire::Chat, url: Some(url), host, variables };
        let here = |name, url| chat(name, url, "", &[]);
        let openai = |name, wire| Usual {
            name,
            wire,
            url: Some("https://api.openai.com/v1"),
            host: "api.openai.com",
            variables: &["OPENAI_API_KEY"],
        };
        match self {
            Provider::OpenaiChat => openai("openai-chat", Wire::Chat),
            Provider::OpenaiResponses => openai("openai-responses", Wire::Responses),
            Provider::Anthropic => Usual {
                name: "anthropic",
                wire: Wire::Anthropic,
                url: Some("https://api.anthropic.com"),
                host: "api.anthropic.com",
                variables: &["ANTHROPIC_API_KEY"],
            },
            Provider::Gemini => Usual {
                name: "gemini",
                wire: Wire::Gemini,
                url: Some("https://generativelanguage.googleapis.com"),
                host: "generativelanguage.googleapis.com",
                variables: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
            },
            Provider::Openrouter => {
                chat("openrouter", "https://openrouter.ai/api/v1", "openrouter.ai", &["OPENROUTER_API_KEY"])
            }
            Provider::Groq => {
                chat("groq", "https://api.groq.com/openai/v1", "api.groq.com", &["GROQ_API_KEY"])
            }
            Provider::Xai => chat("xai", "https://api.x.ai/v1", "api.x.ai", &["XAI_API_KEY"]),
            Provider::Mistral => {
                chat("mistral", "https://api.mistral.ai/v1", "api.mistral.ai", &["MISTRAL_API_KEY"])
            }
            Provider::Deepseek => {
                chat("deepseek", "https://api.deepseek.com/v1", "api.deepseek.com", &["DEEPSEEK_API_KEY"])
            }
            Provider::Azure => {
                Usual { url: None, ..chat("azure", "", "openai.azure.com", &["AZURE_OPENAI_API_KEY"]) }
            }
            Provider::Ollama => here("ollama", "http://localhost:11434/v1"),
            Provider::LlamaCpp => here("llama.cpp", "http://localhost:8080/v1"),
            Provider::LmStudio => here("lm-studio", "http://localhost:1234/v1"),
            Provider::Vllm => here("vllm", "http://localhost:8000/v1"),
            Provider::Scripted => {
                Usual { name: "scripted", wire: Wire::Scripted, url: None, host: "", variables: &[] }
            }
        }
    }

    /// Returns where the key for a server is found when nobody says: in the provider's usual variable, but
    /// only for the provider's own host. No other server is ever sent a key that was not named for it.
    fn usual_key(self, base_url: Option<&str>) -> Option<KeySource> {
        let Usual { url, host, variables, .. } = self.usual();
        let first = variables.first()?;
        if !is_at(base_url.or(url)?, host) {
            return None;
        }
        let set = variables.iter().find(|name| environment::secret(name).is_some());
        Some(KeySource::Env((*set.unwrap_or(first)).to_owned()))
    }
}

/// Returns where the API of a choice begins; `None` where that has to be said and is not.
pub(crate) fn address(choice: &ModelChoice) -> Option<&str> {
    choice.base_url.as_deref().or(Provider::named(&choice.provider).and_then(Provider::url))
}

/// Says where the key of a choice is found, if it does not say so itself.
pub(crate) fn with_usual_key(mut choice: ModelChoice) -> ModelChoice {
    if choice.key.is_none() {
        let provider = Provider::named(&choice.provider);
        choice.key = provider.and_then(|provider| provider.usual_key(choice.base_url.as_deref()));
    }
    choice
}

/// Tells whether an address is of a host or of one below it, over an encrypted connection.
fn is_at(url: &str, host: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let name = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let below = name.strip_suffix(host);
    !authority.contains('@') && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Provider, is_at, with_usual_key};
    use longhaul_session::agent::{KeySource, ModelChoice};

    #[test]
    fn a_provider_has_the_same_name_everywhere() {
        for provider in Provider::ALL {
            let read: Provider = serde_json::from_value(json!(provider.name())).unwrap();
            assert_eq!((read, Provider::named(provider.name())), (provider, Some(provider)));
        }
    }

    #[test]
    fn a_usual_key_goes_to_the_providers_own_host_alone() {
        for url in ["https://api.openai.com/v1", "https://EU.api.openai.com:443/v1", "https://api.openai.com"]
        {
            assert!(is_at(url, "api.openai.com"), "{url}");
        }
        for url in [
            "http://api.openai.com/v1",
            "https://api.openai.com.evil.example/v1",
            "https://notapi.openai.com/v1",
            "https://api.openai.com@evil.example/v1",
            "https://evil.example/api.openai.com",
            "https://evil.example\\.api.openai.com/",
            "http://localhost:8080/v1",
        ] {
            assert!(!is_at(url, "api.openai.com"), "{url}");
        }
        let key = |provider: &str, url: Option<&str>| {
            let choice = ModelChoice { base_url: url.map(str::to_owned), ..ModelChoice::new(provider, "m") };
            with_usual_key(choice).key
        };
        let variable = |name: &str| Some(KeySource::Env(name.to_owned()));
        assert_eq!(key("openai-responses", None), variable("OPENAI_API_KEY"));
        assert_eq!(
            key("azure", Some("https://x.openai.azure.com/openai/v1")),
            variable("AZURE_OPENAI_API_KEY")
        );
        for (provider, url) in [
            ("openai-chat", Some("https://openrouter.ai/api/v1")),
            ("azure", Some("https://example.com/openai/v1")),
            ("ollama", None),
            ("scripted", None),
            ("another", None),
        ] {
            assert_eq!(key(provider, url), None, "{provider}");
        }
    }
}
