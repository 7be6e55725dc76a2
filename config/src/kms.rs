//! KMSs by URL: the configured ones, the known schemes, and setup.

mod schemes;
mod url;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use encx::kms::{KekId, KeyManagementService, KmsName};

use crate::document::{Node, Section, Value};
use crate::error::{BoxError, ConfigError};
use crate::keys;
use crate::resolve::{Environment, Resolver};
use crate::rule::is_kms_name;
use crate::secret::{REDACTED, SecretUrl, scheme_of};
use crate::source::Origin;
use crate::units;

pub use self::url::KmsUrl;

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn KeyManagementService>, ConfigError>> + Send>>;
type Open = Arc<dyn Fn(KmsUrl) -> Opening + Send + Sync>;

/// Schemes that the program registered.
#[derive(Clone, Default)]
pub(crate) struct KmsSchemes(BTreeMap<String, Open>);

impl KmsSchemes {
    pub(crate) fn register<F, Fut, K>(&mut self, scheme: String, open: F)
    where
        F: Fn(KmsUrl) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<K, BoxError>> + Send + 'static,
        K: KeyManagementService,
    {
        let open: Open = Arc::new(move |url: KmsUrl| {
            let opening = open(url.clone());
            Box::pin(async move {
                let kms: Arc<dyn KeyManagementService> =
                    Arc::new(opening.await.map_err(|error| url.kms_error(error))?);
                Ok(kms)
            })
        });
        self.0.insert(scheme, open);
    }

    fn known(&self) -> Vec<String> {
        let own = self.0.keys().map(|scheme| format!("`{scheme}:`"));
        own.chain(schemes::NAMES.iter().map(|scheme| format!("`{scheme}:`")))
            .collect()
    }

    /// Sets up a KMS.
    pub(crate) async fn open(&self, url: &KmsUrl) -> Result<Arc<dyn KeyManagementService>, ConfigError> {
        match self.0.get(url.scheme()) {
            Some(open) => open(url.clone()).await,
            None => schemes::open(url).await,
        }
    }
}

/// The configured KMSs.
#[derive(Clone, Debug, Default)]
pub(crate) struct KmsSettings {
    pub(crate) by_name: BTreeMap<KmsName, KmsUrl>,
    /// The one that `ENCX_KMS` names.
    pub(crate) of_variable: Option<KmsName>,
}

/// What else is needed to resolve KMSs.
pub(crate) struct Surroundings<'a> {
    pub(crate) schemes: &'a KmsSchemes,
    pub(crate) env: &'a Arc<Environment>,
    pub(crate) env_is_process: bool,
    pub(crate) allow_insecure: bool,
    /// `kek.passphrase_file` and `kek.key_file`.
    pub(crate) protection: BTreeMap<String, Vec<String>>,
}

impl KmsSettings {
    /// Reads section `[kms]` of the file, and the variables that start with `ENCX_KMS`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`], [`ConfigError::UnknownKey`], [`ConfigError::UnknownScheme`],
    /// [`ConfigError::NotCompiled`], [`ConfigError::Insecure`].
    pub(crate) fn resolve(
        file: Option<Section>,
        resolver: &mut Resolver<'_>,
        around: &Surroundings<'_>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        let mut urls = Vec::new();
        if let Some(mut section) = file {
            for (name, node) in section.take_all() {
                let origin = section.origin_at(&name, node.line);
                urls.push(of_file(&section, name, node, origin)?);
            }
        }
        let of_env = around.env.iter().filter(|(_, value)| !value.is_empty());
        for (variable, value) in of_env {
            let (name, url) = if variable == keys::KMS {
                match value.split_once('=') {
                    Some((name, url)) if !name.contains(':') => (name.to_owned(), url),
                    _ => (KmsName::DEFAULT.to_owned(), value.as_str()),
                }
            } else if let Some(name) = variable.strip_prefix(keys::KMS_PREFIX) {
                (name.to_ascii_lowercase(), value.as_str())
            } else {
                continue;
            };
            let origin = Origin::Env {
                variable: variable.clone(),
            };
            let twice = urls.iter().find_map(|(found, _, _, origin)| match origin {
                Origin::Env { variable } if *found == name => Some(variable.clone()),
                _ => None,
            });
            if let Some(first) = twice {
                return Err(ConfigError::Value {
                    origin,
                    what: format!("`{first}` names a KMS `{name}` too"),
                    write: "each KMS once".to_owned(),
                });
            }
            urls.retain(|(found, ..)| *found != name);
            if variable == keys::KMS {
                settings.of_variable = KmsName::new(&name).ok();
            }
            urls.push((name, url.to_owned(), BTreeMap::new(), origin));
        }
        if urls.is_empty()
            && let Some(kek) = around.env.get("AWS_KMS_KEY_ID").filter(|kek| !kek.is_empty())
        {
            let origin = Origin::Env {
                variable: "AWS_KMS_KEY_ID".to_owned(),
            };
            urls.push((
                KmsName::DEFAULT.to_owned(),
                format!("aws-kms:{kek}"),
                BTreeMap::new(),
                origin,
            ));
        }
        for (name, url, options, origin) in urls {
            let url = check(&name, url, options, origin, around)?;
            let mut shown = url.url.to_string();
            for (key, values) in &url.options {
                let values = if schemes::NAMES.contains(&url.scheme()) {
                    values.join(", ")
                } else {
                    REDACTED.to_owned()
                };
                shown.push_str(&format!("; {key} = {values}"));
            }
            resolver.describe_file(format!("kms.{}", url.name), shown, &url.origin);
            settings.by_name.insert(url.name.clone(), url);
        }
        Ok(settings)
    }
}

type Found = (String, String, BTreeMap<String, Vec<String>>, Origin);

fn of_file(section: &Section, name: String, node: Node, origin: Origin) -> Result<Found, ConfigError> {
    if let Value::Text(url) = node.value {
        return Ok((name, url, BTreeMap::new(), origin));
    }
    let mut table = section.section_of(format!("kms.{name}"), node)?;
    let url = table.needed_text(
        "url",
        "`url = \"aws-kms:alias/shop\"`, or `NAME = \"URL\"` if nothing else is set",
    )?;
    let mut options = BTreeMap::new();
    for (key, node) in table.take_all() {
        let values = match node.value {
            Value::List(_) | Value::Text(_) => {
                let node = Node {
                    line: node.line,
                    value: node.value,
                };
                let entries = BTreeMap::from([(key.clone(), node)]);
                let list = Node {
                    line: 0,
                    value: Value::Table(entries),
                };
                section.section_of(format!("kms.{name}"), list)?.texts(&key)?
            }
            Value::Boolean(boolean) => vec![boolean.to_string()],
            Value::Number(number) => vec![number],
            other => {
                return Err(ConfigError::Value {
                    origin: table.origin_at(&key, node.line),
                    what: format!("it is {}", other.kind()),
                    write: "a text, a number, `true`, `false` or a list of texts".to_owned(),
                });
            }
        };
        options.insert(key, values);
    }
    Ok((name, url.value, options, url.origin))
}

/// Refuses an invalid KMS before any is set up.
fn check(
    name: &str,
    url: String,
    mut options: BTreeMap<String, Vec<String>>,
    origin: Origin,
    around: &Surroundings<'_>,
) -> Result<KmsUrl, ConfigError> {
    if !is_kms_name(name) {
        return Err(ConfigError::Value {
            origin,
            what: format!("`{}` cannot be the name of a KMS", units::shown(name)),
            write: "a name of 1 to 64 lower-case letters, digits, `-` and `_`, other than `arn`: it is kept with every wrapped \
                    key"
                .to_owned(),
        });
    }
    let unknown = |what: String| ConfigError::UnknownScheme {
        origin: origin.clone(),
        what,
        known: around.schemes.known(),
    };
    let Some(scheme) = scheme_of(&url).map(str::to_owned) else {
        return Err(unknown(
            "it is not a KMS URL, which starts with a scheme and a colon".to_owned(),
        ));
    };
    let is_own = around.schemes.0.contains_key(&scheme);
    if !is_own && !schemes::NAMES.contains(&scheme.as_str()) {
        let similar = keys::similar(&scheme, schemes::NAMES.iter().copied());
        let meant = similar.map_or(String::new(), |similar| format!("; did you mean `{similar}:`?"));
        return Err(unknown(format!(
            "no KMS has URLs with `{}:`{meant}",
            units::shown(&scheme)
        )));
    }
    if scheme == "local" && !options.contains_key("passphrase_file") && !options.contains_key("key_file") {
        options.extend(around.protection.clone());
    }
    let name = KmsName::new(name).map_err(|error| unknown(error.to_string()))?;
    let url = KmsUrl {
        name,
        url: SecretUrl::new(url),
        origin: origin.clone(),
        options,
        allow_insecure: around.allow_insecure,
        env: Arc::clone(around.env),
        env_is_process: around.env_is_process,
    };
    if !is_own {
        schemes::check(&url)?;
    }
    Ok(url)
}

/// The KMSs, set up. From [`Settings::kms`](crate::Settings::kms).
#[derive(Clone, Debug)]
pub struct OpenKms {
    pub(crate) by_name: BTreeMap<KmsName, Arc<dyn KeyManagementService>>,
    pub(crate) primary: KmsName,
}

impl OpenKms {
    /// Returns the KMS that wraps new keys unless a rule says otherwise.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Missing`]: never for KMSs from `Settings::kms`.
    pub fn primary(&self) -> Result<&Arc<dyn KeyManagementService>, ConfigError> {
        self.get(&self.primary).ok_or_else(|| ConfigError::Missing {
            what: format!("the KMS `{}`", self.primary),
            write: format!("name its URL in {}", keys::KMS),
        })
    }

    /// Returns the name of the KMS that wraps new keys unless a rule says otherwise.
    #[must_use]
    pub fn primary_name(&self) -> &KmsName {
        &self.primary
    }

    /// Returns the KMS with a name.
    #[must_use]
    pub fn get(&self, name: &KmsName) -> Option<&Arc<dyn KeyManagementService>> {
        self.by_name.get(name)
    }

    /// Lists all KMSs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&KmsName, &Arc<dyn KeyManagementService>)> {
        self.by_name.iter()
    }

    /// Returns the default KEK of a KMS.
    pub(crate) fn own_kek(&self, name: &KmsName) -> Option<KekId> {
        self.get(name)?.default_kek().cloned()
    }
}
