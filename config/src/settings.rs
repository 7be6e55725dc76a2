//! [`Settings`], and what they build.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use encx::keys::{KeyManager, Maintenance};
use encx::kms::{KekChoice, KekRef, KmsName};
use encx::record::EncryptedColumn;
use encx::store::KeyStore;
use encx::{Crypto, CryptoBuilder};

use crate::columns::{DeclaredColumn, difference};
use crate::describe::Description;
use crate::error::ConfigError;
use crate::keys;
use crate::kms::{KmsSchemes, KmsSettings, OpenKms};
use crate::limits::Limits;
use crate::resolve::Raw;
use crate::rotation::Rotation;
use crate::rule::{KekSetting, Rule, kek_of, unknown_kms};
use crate::secret::SecretUrl;
use crate::source::Origin;
use crate::store::{OpenStore, StoreSchemes, StoreUrl};

/// The settings of a service or program. Made by [`Settings::load`] or a [`Loader`](crate::Loader); cheap to clone.
///
/// `Debug` shows no secret.
#[derive(Clone)]
pub struct Settings(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) file: Option<PathBuf>,
    pub(crate) kms: KmsSettings,
    pub(crate) kms_schemes: KmsSchemes,
    pub(crate) rule: Rule,
    pub(crate) store: Option<StoreUrl>,
    pub(crate) store_schemes: StoreSchemes,
    pub(crate) limits: Limits,
    pub(crate) rotation: Rotation,
    pub(crate) columns: Vec<DeclaredColumn>,
    pub(crate) allow_insecure: bool,
    pub(crate) description: Description,
}

impl Settings {
    /// Connects to the KMSs and the key store, and builds a [`Crypto`].
    ///
    /// # Errors
    ///
    /// Those of [`builder`](Self::builder), and [`ConfigError::Encx`] with those of [`CryptoBuilder::build`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn crypto(&self) -> Result<Crypto, ConfigError> {
        let builder = self.builder().await?;
        Ok(builder.build().await?)
    }

    /// Connects to the KMSs and the key store, and returns a builder with all settings, for further changes.
    ///
    /// # Errors
    ///
    /// Those of [`kms`](Self::kms) and [`key_store`](Self::key_store), and [`ConfigError::Value`] for a rule that names
    /// a KMS which is not configured.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn builder(&self) -> Result<CryptoBuilder, ConfigError> {
        let kms = self.kms().await?;
        let store = self.key_store().await?;
        self.builder_on(&kms, store.key_store())
    }

    /// Like [`builder`](Self::builder), with KMSs that are set up already and with your own key store, such as one on
    /// your own pool.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] for a rule that names a KMS which is not configured, or a KMS without a default KEK.
    pub fn builder_on(&self, kms: &OpenKms, store: impl KeyStore) -> Result<CryptoBuilder, ConfigError> {
        // The builder registers its first KMS as `default`. If no configured KMS has that name, no rule refers to it.
        let default = kms.get(&KmsName::default()).map_or_else(|| kms.primary(), Ok)?;
        let mut builder = Crypto::builder(Arc::clone(default), store);
        for (name, kms) in kms.iter().filter(|(name, _)| name.as_str() != KmsName::DEFAULT) {
            builder = builder.kms_named(name.as_str(), Arc::clone(kms));
        }
        apply_rule(&self.0.rule, kms, self.0.limits.apply(builder))
    }

    /// Sets up all configured KMSs.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Missing`] if there is none; [`ConfigError::Kms`], with its name and what sets it.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn kms(&self) -> Result<OpenKms, ConfigError> {
        let primary = self.primary()?;
        let mut by_name = BTreeMap::new();
        for (name, url) in &self.0.kms.by_name {
            by_name.insert(name.clone(), self.0.kms_schemes.open(url).await?);
        }
        Ok(OpenKms { by_name, primary })
    }

    /// Connects to the key store.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Missing`] if none is configured; [`ConfigError::Store`], with its URL and what sets it.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn key_store(&self) -> Result<OpenStore, ConfigError> {
        match &self.0.store {
            Some(url) => self.0.store_schemes.open(url).await,
            None => Err(ConfigError::Missing {
                what: "the key store".to_owned(),
                write: "set ENCX_KEY_STORE, or DATABASE_URL, or `key_store` in encx.toml, to a URL such as \
                        `postgres://app@db.internal/app?sslmode=verify-full` or `sqlite:keys.db`"
                    .to_owned(),
            }),
        }
    }

    /// Returns the URL of the key store's database, for your own tables beside it. It includes the certificate
    /// authority's file, and turns prepared statements off behind a transaction pooler.
    #[must_use]
    pub fn key_store_url(&self) -> Option<SecretUrl> {
        self.0.store.as_ref().map(StoreUrl::for_tables)
    }

    /// Returns the URL to listen on for changes, with the file of certificates that is set; `None` if none is set.
    #[must_use]
    pub fn listen_url(&self) -> Option<SecretUrl> {
        self.0.store.as_ref().and_then(StoreUrl::for_listening)
    }

    /// Tells whether the key store is said to be behind a transaction pooler.
    #[must_use]
    pub fn transaction_pooler(&self) -> bool {
        self.0
            .store
            .as_ref()
            .is_some_and(|store| store.transaction_pooler)
    }

    /// Connects to the KMSs and the key store, and builds only a key manager, for a tool or a job.
    ///
    /// # Errors
    ///
    /// Those of [`builder`](Self::builder), and [`ConfigError::Encx`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn key_manager(&self) -> Result<KeyManager, ConfigError> {
        let builder = self.builder().await?;
        Ok(builder.build_key_manager()?)
    }

    /// Configures scheduled rotation with the configured periods.
    pub fn maintenance(&self, manager: KeyManager) -> Maintenance {
        self.0.rotation.of(manager)
    }

    /// Lists the encrypted columns that the file declares.
    #[must_use]
    pub fn columns(&self) -> &[DeclaredColumn] {
        &self.0.columns
    }

    /// Lists all settings: their values without secrets, and what sets each.
    pub fn describe(&self) -> Description {
        self.0.description.clone()
    }

    /// Returns the file that was read, if any.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Tells whether `ENCX_ALLOW_INSECURE` is set.
    #[must_use]
    pub fn allows_insecure(&self) -> bool {
        self.0.allow_insecure
    }

    /// Describes how the columns that the file declares differ from those of structs (`User::encx_columns()`); `None`
    /// if they are the same.
    ///
    /// Only the structs' tables are compared. If several structs map to one table, pass the columns of all.
    #[must_use]
    pub fn columns_difference(&self, columns: &[EncryptedColumn]) -> Option<String> {
        difference(&self.0.columns, columns)
    }

    /// Determines which KMS wraps new keys unless a rule says otherwise.
    fn primary(&self) -> Result<KmsName, ConfigError> {
        let configured = &self.0.kms.by_name;
        let by_rule = self.0.rule.default.as_ref();
        if let Some((setting, name)) = by_rule.and_then(|setting| Some((setting, setting.name.kms.as_ref()?)))
        {
            return match configured.contains_key(name) {
                true => Ok(name.clone()),
                false => Err(unknown_kms(setting, name, configured.keys())),
            };
        }
        let default = KmsName::default();
        let of_variable = self.0.kms.of_variable.clone();
        let of_file = || configured.contains_key(&default).then_some(default);
        let only = || {
            (configured.len() == 1)
                .then(|| configured.keys().next().cloned())
                .flatten()
        };
        of_variable.or_else(of_file).or_else(only).ok_or_else(|| match configured.is_empty() {
            true => ConfigError::Missing {
                what: "the KMS".to_owned(),
                write: format!(
                    "set {}, or `default` in section `[kms]` of encx.toml, to a URL such as `aws-kms:alias/shop-pii` or \
                     `local:/var/lib/app/keks.encx`",
                    keys::KMS
                ),
            },
            false => ConfigError::Missing {
                what: "which of several KMSs wraps new keys".to_owned(),
                write: format!(
                    "set {} to its KEK, such as `{}:`, or call one of them `default`",
                    keys::KEK.variable,
                    configured.keys().next().map_or("eu", KmsName::as_str)
                ),
            },
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.description.settings()).finish()
    }
}

/// Applies the rule to a builder, with all names resolved.
fn apply_rule(rule: &Rule, kms: &OpenKms, mut builder: CryptoBuilder) -> Result<CryptoBuilder, ConfigError> {
    let choice = |kek: KekRef, also_wrap: &[KekSetting], also_unwrap: &[KekSetting]| {
        let mut choice = KekChoice::new(kek);
        for setting in also_wrap {
            choice = choice.also_wrap(find(setting, kms)?);
        }
        for setting in also_unwrap {
            choice = choice.also_unwrap(find(setting, kms)?);
        }
        Ok::<_, ConfigError>(choice)
    };
    if let Some(kek) = default_kek(rule, kms)? {
        builder = builder.kek_choice(choice(kek, &rule.also_wrap, &[])?);
    } else if let Some(setting) = rule.also_wrap.first() {
        return Err(ConfigError::Value {
            origin: setting.origin.clone(),
            what: "there is no KEK that wraps first".to_owned(),
            write: format!("the KEK that wraps first in {}", keys::KEK.variable),
        });
    }
    for pair in &rule.by_pair {
        let choice = choice(find(&pair.kek, kms)?, &pair.also_wrap, &pair.also_unwrap)?;
        builder = builder.kek_choice_for(&pair.key, &pair.value, choice);
    }
    for setting in &rule.also_unwrap {
        builder = builder.also_unwrap(find(setting, kms)?);
    }
    Ok(builder)
}

/// Returns the KEK of contexts that match no pair: the rule's, or the KMS's default.
fn default_kek(rule: &Rule, kms: &OpenKms) -> Result<Option<KekRef>, ConfigError> {
    match &rule.default {
        Some(setting) => find(setting, kms).map(Some),
        None => Ok(kms
            .own_kek(&kms.primary)
            .map(|kek| KekRef::new(kms.primary.clone(), kek))),
    }
}

impl OpenKms {
    /// Resolves the name of a KEK: `KEK`, `KMS:KEK`, or `KMS:` for the KMS's default.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] for a text that is not a name, a KMS that is not configured, or one without a default
    /// KEK.
    pub fn parse_kek(&self, text: &str) -> Result<KekRef, ConfigError> {
        find(&kek_of(&Origin::Argument, Raw::Text(text.to_owned()))?, self)
    }
}

/// Resolves the KMS and the KEK of a setting.
fn find(setting: &KekSetting, kms: &OpenKms) -> Result<KekRef, ConfigError> {
    let name = setting.name.kms.clone().unwrap_or_else(|| kms.primary.clone());
    if kms.get(&name).is_none() {
        return Err(unknown_kms(setting, &name, kms.by_name.keys()));
    }
    let kek = setting.name.kek.clone().or_else(|| kms.own_kek(&name));
    let kek = kek.ok_or_else(|| ConfigError::Value {
        origin: setting.origin.clone(),
        what: format!("the KMS `{name}` has no default KEK"),
        write: format!("`{name}:` and the KEK's name, or put the KEK into the KMS's URL"),
    })?;
    Ok(KekRef::new(name, kek))
}

/// Panics if the columns that the file declares differ from those of structs; for a test.
///
/// ```
/// use encx::record::{EncryptedColumn, RowIdKind};
/// use encx_config::{Loader, assert_columns_match, columns_toml};
///
/// // In a test: `let derived = User::encx_columns();`
/// let derived = [EncryptedColumn::new("users", "ssn").row_id("id", RowIdKind::Integer).context_value("purpose", "pii")];
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("encx.toml");
/// # std::fs::write(&path, columns_toml(&derived))?;
/// let settings = Loader::new().file(path).load()?;
/// assert_columns_match(&settings, &derived);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// If they differ, with what to change in the file.
#[track_caller]
pub fn assert_columns_match(settings: &Settings, columns: &[EncryptedColumn]) {
    if let Some(difference) = settings.columns_difference(columns) {
        let file = settings
            .file()
            .map_or("no file".to_owned(), |path| path.display().to_string());
        panic!("the columns of {file} are not those of the structs\n\n{difference}");
    }
}
