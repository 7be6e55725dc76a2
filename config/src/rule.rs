//! The KEK rule: which KEK wraps new keys, and which others may unwrap.

use std::collections::BTreeMap;
use std::fmt;

use encx::EncryptionContext;
use encx::kms::{KekId, KmsName};

use crate::document::{Node, Section, Value};
use crate::error::ConfigError;
use crate::keys;
use crate::resolve::{Raw, Resolver};
use crate::source::{Origin, Set};

/// The name of a KEK in settings: `alias/shop`, `eu:alias/shop`, or `eu:` for the default KEK of this KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KekName {
    /// The KMS, if not the one that wraps new keys.
    pub(crate) kms: Option<KmsName>,
    /// The KEK, if not the KMS's default.
    pub(crate) kek: Option<KekId>,
}

impl fmt::Display for KekName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kms) = &self.kms {
            write!(f, "{kms}:")?;
        }
        self.kek.as_ref().map_or(Ok(()), |kek| write!(f, "{kek}"))
    }
}

/// A KEK name and what sets it.
#[derive(Clone, Debug)]
pub(crate) struct KekSetting {
    pub(crate) name: KekName,
    pub(crate) origin: Origin,
}

/// The configured rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) default: Option<KekSetting>,
    pub(crate) also_wrap: Vec<KekSetting>,
    pub(crate) also_unwrap: Vec<KekSetting>,
    pub(crate) by_pair: Vec<PairRule>,
}

/// The rule for contexts with a pair.
#[derive(Clone, Debug)]
pub(crate) struct PairRule {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) kek: KekSetting,
    pub(crate) also_wrap: Vec<KekSetting>,
    pub(crate) also_unwrap: Vec<KekSetting>,
}

impl Rule {
    /// # Errors
    ///
    /// [`ConfigError::Value`] if a value is not a KEK's name; [`ConfigError::UnknownKey`].
    pub(crate) fn resolve(resolver: &mut Resolver<'_>) -> Result<Self, ConfigError> {
        let show = |setting: &KekSetting| setting.name.to_string();
        let default = resolver.entry(&keys::KEK, kek_of, show)?.map(|set| set.value);
        let also_unwrap = resolver.list(&keys::ALSO_UNWRAP, kek_of, show)?;
        let also_wrap = resolver.list(&keys::ALSO_WRAP, kek_of, show)?;
        let mut by_pair = Vec::new();
        if let Some(kek) = resolver.section("kek") {
            for section in kek.sections("for")? {
                by_pair.push(PairRule::read(section)?);
            }
        }
        for rule in &by_pair {
            let key = format!("kek.for {} = {}", rule.key, rule.value);
            let mut value = rule.kek.name.to_string();
            for (what, keks) in [("also_wrap", &rule.also_wrap), ("also_unwrap", &rule.also_unwrap)] {
                if !keks.is_empty() {
                    let keks: Vec<_> = keks.iter().map(show).collect();
                    value.push_str(&format!("; {what} {}", keks.join(", ")));
                }
            }
            resolver.describe_file(key, value, &rule.kek.origin);
        }
        Ok(Self {
            default,
            also_wrap,
            also_unwrap,
            by_pair,
        })
    }

    /// Refuses a rule that names a KMS which is not configured.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`].
    pub(crate) fn check<T>(&self, configured: &BTreeMap<KmsName, T>) -> Result<(), ConfigError> {
        for setting in self.all() {
            if let Some(name) = &setting.name.kms
                && !configured.contains_key(name)
            {
                return Err(unknown_kms(setting, name, configured.keys()));
            }
        }
        Ok(())
    }

    /// Lists all KEKs that the rule names.
    fn all(&self) -> impl Iterator<Item = &KekSetting> {
        let pairs = self.by_pair.iter().flat_map(|rule| {
            std::iter::once(&rule.kek)
                .chain(&rule.also_wrap)
                .chain(&rule.also_unwrap)
        });
        self.default
            .iter()
            .chain(&self.also_wrap)
            .chain(&self.also_unwrap)
            .chain(pairs)
    }
}

impl PairRule {
    fn read(mut section: Section) -> Result<Self, ConfigError> {
        let pair = section.needed_text("pair", "`pair = \"purpose\"`, the key of a pair of contexts")?;
        let value = section.needed_text("value", "`value = \"logs\"`, the value of that pair")?;
        check_pair(&pair, &value.value)?;
        let Some(node) = section.take("kek") else {
            return Err(ConfigError::Value {
                origin: section.origin(),
                what: "it has no `kek`".to_owned(),
                write: "`kek = \"alias/logs\"`, the KEK of contexts that have the pair".to_owned(),
            });
        };
        let kek = kek_of(&section.origin_at("kek", node.line), Raw::Node(node))?;
        let also_wrap = keks_of(&mut section, "also_wrap")?;
        let also_unwrap = keks_of(&mut section, "also_unwrap")?;
        section.finish()?;
        Ok(Self {
            key: pair.value,
            value: value.value,
            kek,
            also_wrap,
            also_unwrap,
        })
    }
}

/// Returns the error for a rule that names a KMS which is not configured.
pub(crate) fn unknown_kms<'a>(
    setting: &KekSetting,
    name: &KmsName,
    configured: impl Iterator<Item = &'a KmsName>,
) -> ConfigError {
    let configured: Vec<_> = configured.map(|name| format!("`{name}`")).collect();
    ConfigError::Value {
        origin: setting.origin.clone(),
        what: format!("no KMS `{name}` is configured"),
        write: format!(
            "one of {}, or configure it with {}{}",
            configured.join(", "),
            keys::KMS_PREFIX,
            name.as_str().to_ascii_uppercase()
        ),
    }
}

/// Refuses a pair that no context can have and that would never match.
///
/// # Errors
///
/// [`ConfigError::Value`].
pub(crate) fn check_pair(key: &Set<String>, value: &str) -> Result<(), ConfigError> {
    match EncryptionContext::builder().pair(&key.value, value).build() {
        Ok(_) => Ok(()),
        Err(error) => Err(ConfigError::Value {
            origin: key.origin.clone(),
            what: format!("no encryption context has this pair: {error}"),
            write: "the key and value of a pair as your code writes them".to_owned(),
        }),
    }
}

fn keks_of(section: &mut Section, key: &str) -> Result<Vec<KekSetting>, ConfigError> {
    let Some(node) = section.take(key) else {
        return Ok(Vec::new());
    };
    let origin = section.origin_at(key, node.line);
    match node.value {
        Value::List(list) => list
            .into_iter()
            .map(|node| kek_of(&origin, Raw::Node(node)))
            .collect(),
        value => Ok(vec![kek_of(
            &origin,
            Raw::Node(Node {
                line: node.line,
                value,
            }),
        )?]),
    }
}

/// Reads the name of a KEK: a text, or a table in the file.
pub(crate) fn kek_of(origin: &Origin, raw: Raw) -> Result<KekSetting, ConfigError> {
    let refuse = |what: String| {
        ConfigError::Value {
        origin: origin.clone(),
        what,
        write: "a KEK's name, such as `alias/shop`, with that of its KMS before it where it is another: `eu:alias/shop`; \
                `eu:` alone is the KEK that this KMS has by default"
            .to_owned(),
    }
    };
    let (kms, kek) = match raw {
        Raw::Text(text)
        | Raw::Node(Node {
            value: Value::Text(text),
            ..
        }) => match text.split_once(':') {
            Some((kms, kek)) if is_kms_name(kms) => (Some(kms.to_owned()), kek.to_owned()),
            _ => (None, text),
        },
        Raw::Node(Node {
            value: Value::Table(mut entries),
            ..
        }) => {
            let mut take = |key: &str| match entries.remove(key) {
                None => Ok(None),
                Some(Node {
                    value: Value::Text(text),
                    ..
                }) => Ok(Some(text)),
                Some(node) => Err(refuse(format!("its `{key}` is {}", node.value.kind()))),
            };
            let (kms, kek) = (take("kms")?, take("kek")?.unwrap_or_default());
            if let Some(unknown) = entries.keys().next() {
                return Err(refuse(format!("`{unknown}` is neither `kms` nor `kek`")));
            }
            (kms, kek)
        }
        Raw::Node(node) => return Err(refuse(format!("it is {}", node.value.kind()))),
    };
    let kms = kms
        .map(KmsName::new)
        .transpose()
        .map_err(|error| refuse(error.to_string()))?;
    let kek = match kek.trim() {
        "" => None,
        kek => Some(KekId::new(kek).map_err(|error| refuse(error.to_string()))?),
    };
    if kms.is_none() && kek.is_none() {
        return Err(refuse("it names no KEK".to_owned()));
    }
    Ok(KekSetting {
        name: KekName { kms, kek },
        origin: origin.clone(),
    })
}

/// Tells whether the text before a colon can be the name of a KMS: `arn` never is.
pub(crate) fn is_kms_name(name: &str) -> bool {
    let is_fit = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '-' | '_');
    !name.is_empty() && name.len() <= 64 && name != "arn" && name.chars().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KekName, ConfigError> {
        kek_of(&Origin::Default, Raw::Text(text.to_owned())).map(|setting| setting.name)
    }

    #[test]
    fn the_name_of_a_kms_precedes_a_colon() {
        for (text, kms, kek) in [
            ("alias/shop", None, Some("alias/shop")),
            (
                "arn:aws:kms:eu-central-1:1:key/2",
                None,
                Some("arn:aws:kms:eu-central-1:1:key/2"),
            ),
            (
                "eu:arn:aws:kms:eu-central-1:1:key/2",
                Some("eu"),
                Some("arn:aws:kms:eu-central-1:1:key/2"),
            ),
            ("eu:", Some("eu"), None),
            ("https://vault/key", Some("https"), Some("//vault/key")),
            (
                "default:https://vault/key",
                Some("default"),
                Some("https://vault/key"),
            ),
        ] {
            let name = parse(text).unwrap();
            assert_eq!(name.kms.as_ref().map(KmsName::as_str), kms, "{text}");
            assert_eq!(name.kek.as_ref().map(KekId::as_str), kek, "{text}");
            assert_eq!(name.to_string(), text);
        }
        assert!(parse("").is_err());
        assert!(parse("a\nb").is_err());
    }
}
