//! Sources of settings: the environment, a file, and schemes that the program registers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::future::Future;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use encx::kms::KeyManagementService;

use crate::columns;
use crate::describe::Description;
use crate::document::Section;
use crate::error::{BoxError, ConfigError};
use crate::keys;
use crate::kms::{KmsSchemes, KmsSettings, KmsUrl, Surroundings};
use crate::limits::Limits;
use crate::resolve::{Environment, Resolver};
use crate::rotation::Rotation;
use crate::rule::Rule;
use crate::secret::has_password;
use crate::settings::{Inner, Settings};
#[cfg(unix)]
use crate::source::Origin;
use crate::store::{self, OpenStore, StoreSchemes, StoreUrl};

/// The file that is read if it exists and none is named.
const DEFAULT_FILE: &str = "encx.toml";

/// Loads [`Settings`] from the process's environment and file, or from what a test gives.
///
/// ```
/// use encx_config::Loader;
///
/// let settings = Loader::new().env([("ENCX_KMS", "aws-kms:alias/shop"), ("ENCX_CACHE_TTL", "15min")]);
/// # #[cfg(feature = "aws")] {
/// let settings = settings.load()?;
/// assert_eq!(settings.describe().get("cache.ttl").map(|ttl| ttl.value.as_str()), Some("15m"));
/// # }
/// # Ok::<(), encx_config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "a loader does nothing until `load` is called"]
pub struct Loader {
    env: Environment,
    env_is_process: bool,
    file: Option<PathBuf>,
    kms_schemes: KmsSchemes,
    store_schemes: StoreSchemes,
}

impl Settings {
    /// Loads settings from the environment of this process, and from the file that `ENCX_CONFIG` names. Without it,
    /// `encx.toml` in the working directory is read if it exists.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the variable, or the key with file and line.
    pub fn load() -> Result<Self, ConfigError> {
        Loader::from_env().load()
    }
}

impl Loader {
    /// Makes a loader without variables and without a file. For tests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a loader for the environment of this process, which also determines the file.
    pub fn from_env() -> Self {
        let env = std::env::vars_os().filter_map(|(name, value)| {
            // A value that is not valid Unicode is kept, with replacements, so that it is refused rather than ignored.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        Self {
            env: env.collect(),
            env_is_process: true,
            ..Self::default()
        }
    }

    /// Uses these variables instead of the environment.
    pub fn env<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self.env_is_process = false;
        self
    }

    /// Reads this file, even if the environment names another. It must exist.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Registers a URL scheme of your own for `ENCX_KMS` and similar settings. `open` sets up its KMSs.
    ///
    /// [`KmsUrl`] has an example.
    pub fn kms_scheme<F, Fut, K>(mut self, scheme: impl Into<String>, open: F) -> Self
    where
        F: Fn(KmsUrl) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<K, BoxError>> + Send + 'static,
        K: KeyManagementService,
    {
        self.kms_schemes.register(scheme.into(), open);
        self
    }

    /// Registers a URL scheme of your own for `ENCX_KEY_STORE`. `open` opens its key stores.
    ///
    /// ```
    /// # use encx_testkit::MemoryKeyStore;
    /// use encx_config::{Loader, OpenStore};
    ///
    /// # encx_testkit::block_on(async {
    /// let settings = Loader::new()
    ///     .env([("ENCX_KEY_STORE", "acme:keys")])
    ///     .store_scheme("acme", |_url| async { Ok(OpenStore::new(MemoryKeyStore::new())) })
    ///     .load()?;
    /// settings.key_store().await?.migrate().await?;
    /// # Ok::<(), encx_config::ConfigError>(())
    /// # }).unwrap();
    /// ```
    pub fn store_scheme<F, Fut>(mut self, scheme: impl Into<String>, open: F) -> Self
    where
        F: Fn(StoreUrl) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<OpenStore, BoxError>> + Send + 'static,
    {
        self.store_schemes.register(scheme.into(), open);
        self
    }

    /// Reads and checks all settings. Connects to nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the variable, or the key with file and line.
    pub fn load(self) -> Result<Settings, ConfigError> {
        check_variables(&self.env)?;
        let path = self.path();
        let mut file = match &path {
            Some((path, named_by)) => {
                let (text, metadata) = read(path, named_by)?;
                check_writers(path, &metadata)?;
                let file = Section::parse(path, &text)?;
                check_readers(path, &metadata, &file)?;
                Some(file)
            }
            None => None,
        };
        let env = Arc::new(self.env);
        let (kms_section, column_sections) = match &mut file {
            Some(file) => (Some(file.section("kms")?), file.sections("column")?),
            None => (None, Vec::new()),
        };
        let mut resolver = Resolver::new(&env, file.as_mut())?;
        let allow_insecure = resolver.boolean(&keys::ALLOW_INSECURE)?.unwrap_or_default();
        let mut protection = BTreeMap::new();
        for (option, key) in [
            ("passphrase_file", &keys::PASSPHRASE_FILE),
            ("key_file", &keys::KEY_FILE),
        ] {
            if let Some(set) = resolver.text(key)? {
                protection.insert(option.to_owned(), vec![set.value]);
            }
        }
        let around = Surroundings {
            schemes: &self.kms_schemes,
            env: &env,
            env_is_process: self.env_is_process,
            allow_insecure,
            protection,
        };
        let kms = KmsSettings::resolve(kms_section, &mut resolver, &around)?;
        let rule = Rule::resolve(&mut resolver)?;
        rule.check(&kms.by_name)?;
        let store = store::resolve(&mut resolver, &self.store_schemes, &env)?;
        let limits = Limits::resolve(&mut resolver)?;
        let rotation = Rotation::resolve(&mut resolver)?;
        let columns = columns::read(column_sections)?;
        let description = Description(resolver.finish()?);
        if let Some(file) = file {
            file.finish()?;
        }
        Ok(Settings(Arc::new(Inner {
            file: path.map(|(path, _)| path),
            kms,
            kms_schemes: self.kms_schemes,
            rule,
            store,
            store_schemes: self.store_schemes,
            limits,
            rotation,
            columns,
            allow_insecure,
            description,
        })))
    }

    /// Returns the file to read, and what names it.
    fn path(&self) -> Option<(PathBuf, String)> {
        if let Some(path) = &self.file {
            return Some((path.clone(), "the program names".to_owned()));
        }
        if let Some(path) = self.env.get(keys::CONFIG_FILE).filter(|path| !path.is_empty()) {
            return Some((PathBuf::from(path), format!("{} names", keys::CONFIG_FILE)));
        }
        let default = Path::new(DEFAULT_FILE);
        let is_there = self.env_is_process && default.exists();
        is_there.then(|| (default.to_path_buf(), "is in the working directory".to_owned()))
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the environment, which also holds other programs' secrets.
        f.debug_struct("Loader")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Reads a file, and the metadata of that same open file: the path may name another file a moment later.
fn read(path: &Path, named_by: &str) -> Result<(String, Metadata), ConfigError> {
    let read = || {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok((text, metadata))
    };
    read().map_err(|source: io::Error| ConfigError::File {
        path: path.to_path_buf(),
        named_by: named_by.to_owned(),
        source: Arc::new(source),
    })
}

/// Refuses unknown variables that start like settings; otherwise a mistyped one would be silently ignored.
fn check_variables(env: &Environment) -> Result<(), ConfigError> {
    let known = || {
        keys::all()
            .map(|key| key.variable)
            .chain([keys::CONFIG_FILE, keys::KMS])
    };
    let unknown = env.iter().find(|(name, value)| {
        name.starts_with("ENCX_")
            && !value.is_empty()
            && !name.starts_with(keys::KMS_PREFIX)
            && !name.starts_with("ENCX_TEST_")
            && !is_of_kubernetes(name)
            && !known().any(|known| known == *name)
    });
    match unknown {
        None => Ok(()),
        Some((name, _)) => Err(ConfigError::UnknownVariable {
            variable: name.clone(),
            similar: keys::similar(name, known()),
        }),
    }
}

/// Tells whether Kubernetes sets a variable in every container because a service is called `encx` or `encx-…`.
fn is_of_kubernetes(name: &str) -> bool {
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with('_');
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|end| name.split_once(end).is_some_and(|(_, rest)| is_port(rest)))
}

/// Refuses a file that users other than root and the user of this process can change: it determines where data keys are
/// sent.
#[cfg(unix)]
fn check_writers(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt as _;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let mode = metadata.mode() & 0o7777;
    if owner_ok(owner, user) && mode & 0o022 == 0 {
        return Ok(());
    }
    let path = path.to_path_buf();
    Err(ConfigError::Writable {
        path,
        mode,
        owner,
        user,
    })
}

/// Tells whether a process of `user` may trust a file of `owner`.
#[cfg(unix)]
fn owner_ok(owner: u32, user: u32) -> bool {
    owner == user || owner == 0
}

#[cfg(not(unix))]
fn check_writers(_: &Path, _: &Metadata) -> Result<(), ConfigError> {
    Ok(())
}

/// Refuses a file with a password that every user of the machine can read.
#[cfg(unix)]
fn check_readers(path: &Path, metadata: &Metadata, file: &Section) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(secret) = file.find_text(has_password) else {
        return Ok(());
    };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let what = match secret {
        Origin::File { line, key, .. } => format!("the password of `{key}` in line {line}"),
        _ => "a password in it".to_owned(),
    };
    let path = path.to_path_buf();
    Err(ConfigError::Permissions { path, mode, what })
}

#[cfg(not(unix))]
fn check_readers(_: &Path, _: &Metadata, _: &Section) -> Result<(), ConfigError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_users_or_roots() {
        for (owner, user, ok) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1000, 0, false),
            (1001, 1000, false),
        ] {
            assert_eq!(owner_ok(owner, user), ok, "{owner}'s file, {user}'s process");
        }
    }
}
