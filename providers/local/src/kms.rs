//! [`LocalKms`]: opens a KEK file, changes its KEKs, and wraps and unwraps with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use encx_core::key::{DataKey, KekId, WrappedKey};
use encx_core::kms::{
    GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
    KmsOperation,
};
use encx_suite::{KcXaes256Gcm, OpenError, SealError};
use zeroize::Zeroizing;

use crate::disk::{self, Stamp, WriteLock};
use crate::error::{LocalKmsError, PROVIDER};
use crate::format::{self, FormatError, Header};
use crate::keks::{Keks, LocalKek, UseError};
use crate::protection::Protection;

/// Wraps data keys under KEKs in one protected file.
///
/// A KEK's id is permanent: `local/` and a UUID. Aliases such as `alias/app` name it. Every file has a default KEK; a
/// handle reads it on opening and keeps it. Clones share all state.
///
/// Every call checks whether another process replaced the file, and reads newer contents of the same file. Another file
/// in its place is refused ([`LocalKmsError::Replaced`]). All file access and Argon2 run on Tokio's blocking threads.
///
/// <div class="warning">
///
/// A lost file, a lost passphrase or a lost key loses all data under its KEKs. Back the file up.
///
/// </div>
///
/// # Cancellation
///
/// A change whose future is dropped may still happen, but never partially.
#[derive(Clone)]
pub struct LocalKms(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// The file's header, which is unique and never changes.
    header: Zeroizing<Vec<u8>>,
    kind: HeaderKind,
    cipher: KcXaes256Gcm,
    default_kek: Option<KekId>,
    current: Mutex<Arc<Snapshot>>,
}

/// What a failed commitment means.
#[derive(Clone, Copy)]
enum HeaderKind {
    Key,
    Passphrase,
    PermissionsOnly,
}

/// The KEKs of one version of the file.
struct Snapshot {
    keks: Keks,
    stamp: Stamp,
}

/// How to open a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Open,
    OpenOrCreate,
}

impl LocalKms {
    /// Creates a KEK file with one KEK, its default.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::Exists`] if there is already a file; others if the protection is not usable or the file cannot
    /// be written.
    pub async fn create(path: impl Into<PathBuf>, protection: Protection) -> Result<Self, LocalKmsError> {
        Self::begin(path.into(), protection, Mode::Create).await
    }

    /// Opens a KEK file.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::Missing`] if there is none, [`LocalKmsError::WrongPassphrase`] or [`LocalKmsError::WrongKey`],
    /// [`LocalKmsError::Corrupt`] if it is damaged or truncated, [`LocalKmsError::Owner`] if it belongs to neither this
    /// process's user nor root, [`LocalKmsError::Permissions`] if users other than its owner have a permission on it,
    /// and others if it cannot be read.
    pub async fn open(path: impl Into<PathBuf>, protection: Protection) -> Result<Self, LocalKmsError> {
        Self::begin(path.into(), protection, Mode::Open).await
    }

    /// Opens a KEK file, or creates it if there is none.
    ///
    /// Prefer [`open`](Self::open) in production: if a volume is not mounted, this creates a new file whose KEKs open
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub async fn open_or_create(
        path: impl Into<PathBuf>,
        protection: Protection,
    ) -> Result<Self, LocalKmsError> {
        Self::begin(path.into(), protection, Mode::OpenOrCreate).await
    }

    async fn begin(path: PathBuf, protection: Protection, mode: Mode) -> Result<Self, LocalKmsError> {
        blocking(move || {
            // So that the process still finds its file after changing its directory.
            let path = std::path::absolute(&path).map_err(LocalKmsError::io("find", &path))?;
            let inner = match mode {
                Mode::Open => Inner::open(path, &protection)?,
                // The lock is only for creating: a file on a read-only volume must still open.
                Mode::OpenOrCreate => match Inner::open(path.clone(), &protection) {
                    Err(LocalKmsError::Missing { .. }) => Inner::create(path, &protection, mode)?,
                    opened => opened?,
                },
                Mode::Create => Inner::create(path, &protection, mode)?,
            };
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    /// Returns the file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Lists all KEKs, in creation order.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), if the file was replaced and cannot be read.
    pub async fn list_keks(&self) -> Result<Vec<LocalKek>, LocalKmsError> {
        Ok(self.snapshot().await?.keks.list())
    }

    /// Creates a KEK and returns its id.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::Full`], and those of reading and writing the file.
    pub async fn create_kek(&self) -> Result<KekId, LocalKmsError> {
        self.change(Keks::create_kek).await
    }

    /// Points an alias, such as `alias/app`, to a KEK. Does nothing if it already does.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::AliasExists`] if it names another KEK, [`LocalKmsError::AliasForm`], [`LocalKmsError::UnknownKek`],
    /// [`LocalKmsError::Full`], and those of reading and writing the file.
    pub async fn create_alias(&self, alias: &str, kek: &KekId) -> Result<(), LocalKmsError> {
        let (alias, kek) = (KekId::new(alias)?, kek.clone());
        self.change(move |keks| keks.create_alias(&alias, &kek)).await
    }

    /// Points an alias to this KEK, replacing its previous target. Wraps are not affected: they name their KEK.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::AliasForm`], [`LocalKmsError::UnknownKek`], [`LocalKmsError::Full`], and those of reading and
    /// writing the file.
    pub async fn move_alias(&self, alias: &str, kek: &KekId) -> Result<(), LocalKmsError> {
        let (alias, kek) = (KekId::new(alias)?, kek.clone());
        self.change(move |keks| keks.move_alias(&alias, &kek)).await
    }

    /// Creates new material for a KEK, which wraps from now on, and returns its id. Old material is kept for
    /// unwrapping.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::UnknownKek`], [`LocalKmsError::Full`], and those of reading and writing the file.
    pub async fn rotate_kek(&self, kek: &KekId) -> Result<String, LocalKmsError> {
        let kek = kek.clone();
        self.change(move |keks| keks.rotate_kek(&kek)).await
    }

    /// Disables a KEK: it neither wraps nor unwraps, in any process, until it is enabled.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::UnknownKek`], and those of reading and writing the file.
    pub async fn disable_kek(&self, kek: &KekId) -> Result<(), LocalKmsError> {
        self.set_state(kek, KekState::Disabled).await
    }

    /// Enables a KEK again.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::UnknownKek`], and those of reading and writing the file.
    pub async fn enable_kek(&self, kek: &KekId) -> Result<(), LocalKmsError> {
        self.set_state(kek, KekState::Enabled).await
    }

    async fn set_state(&self, kek: &KekId, state: KekState) -> Result<(), LocalKmsError> {
        let kek = kek.clone();
        self.change(move |keks| keks.set_state(&kek, state)).await
    }

    /// Makes a KEK the default for handles that are opened later.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::UnknownKek`], and those of reading and writing the file.
    pub async fn set_default_kek(&self, kek: &KekId) -> Result<(), LocalKmsError> {
        let kek = kek.clone();
        self.change(move |keks| keks.set_default(&kek)).await
    }

    /// Changes the protection of the file to another passphrase or key. The KEKs stay the same.
    ///
    /// Open handles, including this one, then refuse the file ([`LocalKmsError::Replaced`]): restart services with the
    /// new passphrase or key. A copy of the old file still opens with the old one. If KEKs may have leaked,
    /// [`rotate_kek`](Self::rotate_kek) does not help; move to a new KEK.
    ///
    /// # Errors
    ///
    /// Those of reading and writing the file, and those for an unusable protection.
    pub async fn reprotect(&self, protection: Protection) -> Result<(), LocalKmsError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.reprotect(&protection)).await
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Keks) -> Result<T, LocalKmsError> + Send + 'static,
    ) -> Result<T, LocalKmsError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.change(change)).await
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, LocalKmsError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.snapshot()).await
    }

    async fn snapshot_for(&self, operation: KmsOperation, kek: &KekId) -> Result<Arc<Snapshot>, KmsError> {
        self.snapshot()
            .await
            .map_err(|error| error.into_kms_error(operation, kek))
    }
}

impl Inner {
    fn open(path: PathBuf, protection: &Protection) -> Result<Self, LocalKmsError> {
        let (bytes, stamp) = disk::read(&path)?;
        let parsed = format::parse(&bytes).map_err(|error| format_error(error, &path))?;
        let cipher = KcXaes256Gcm::new(&protection.file_key(&parsed.header, &path)?);
        let kind = HeaderKind::of(&parsed.header);
        let keks = open_body(&cipher, kind, &parsed, &path)?;
        let header = Zeroizing::new(parsed.header_bytes.to_vec());
        Ok(Self::new(path, header, kind, cipher, Snapshot { keks, stamp }))
    }

    fn create(path: PathBuf, protection: &Protection, mode: Mode) -> Result<Self, LocalKmsError> {
        let lock = WriteLock::acquire(&path)?;
        if lock.exists()? {
            drop(lock);
            return match mode {
                Mode::Create => Err(LocalKmsError::Exists { path }),
                // Another process created it first.
                Mode::Open | Mode::OpenOrCreate => Self::open(path, protection),
            };
        }
        let header = protection.new_header()?;
        let cipher = KcXaes256Gcm::new(&protection.file_key(&header, &path)?);
        let (kind, header) = (HeaderKind::of(&header), header.to_bytes());
        let keks = Keks::new()?;
        let stamp = lock.replace(&seal(&cipher, &header, &keks)?)?;
        Ok(Self::new(path, header, kind, cipher, Snapshot { keks, stamp }))
    }

    fn new(
        path: PathBuf,
        header: Zeroizing<Vec<u8>>,
        kind: HeaderKind,
        cipher: KcXaes256Gcm,
        snapshot: Snapshot,
    ) -> Self {
        Self {
            path,
            header,
            kind,
            cipher,
            default_kek: snapshot.keks.default_kek().cloned(),
            current: Mutex::new(Arc::new(snapshot)),
        }
    }

    /// Returns the KEKs in the current file.
    fn snapshot(&self) -> Result<Arc<Snapshot>, LocalKmsError> {
        let mut current = self.current();
        if !current.stamp.is_current(&self.path)? {
            *current = Arc::new(self.read()?);
        }
        Ok(Arc::clone(&current))
    }

    /// Changes the KEKs under the writer lock, starting from the current file.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Keks) -> Result<T, LocalKmsError>,
    ) -> Result<T, LocalKmsError> {
        let lock = WriteLock::acquire(&self.path)?;
        let mut keks = self.read()?.keks;
        let result = change(&mut keks)?;
        let stamp = lock.replace(&seal(&self.cipher, &self.header, &keks)?)?;
        *self.current() = Arc::new(Snapshot { keks, stamp });
        Ok(result)
    }

    fn reprotect(&self, protection: &Protection) -> Result<(), LocalKmsError> {
        let header = protection.new_header()?;
        let cipher = KcXaes256Gcm::new(&protection.file_key(&header, &self.path)?);
        let lock = WriteLock::acquire(&self.path)?;
        let keks = self.read()?.keks;
        lock.replace(&seal(&cipher, &header.to_bytes(), &keks)?)?;
        Ok(())
    }

    fn read(&self) -> Result<Snapshot, LocalKmsError> {
        let (bytes, stamp) = disk::read(&self.path)?;
        let parsed = format::parse(&bytes).map_err(|error| format_error(error, &self.path))?;
        if parsed.header_bytes != self.header.as_slice() {
            // Another file, possibly sealed under the same key: its KEKs differ.
            return Err(LocalKmsError::Replaced {
                path: self.path.clone(),
            });
        }
        let keks = open_body(&self.cipher, self.kind, &parsed, &self.path)?;
        Ok(Snapshot { keks, stamp })
    }

    fn current(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        // The only change is an assignment, so a thread that panicked left consistent state.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeaderKind {
    fn of(header: &Header) -> Self {
        match header {
            Header::Key { .. } => Self::Key,
            Header::Passphrase { .. } => Self::Passphrase,
            Header::PermissionsOnly { .. } => Self::PermissionsOnly,
        }
    }

    /// Maps a failure to open a file with a valid checksum.
    fn refuse(self, error: OpenError, path: &Path) -> LocalKmsError {
        let path = path.to_path_buf();
        match (self, error) {
            (Self::Key, OpenError::Commitment) => LocalKmsError::WrongKey { path },
            (Self::Passphrase, OpenError::Commitment) => LocalKmsError::WrongPassphrase { path },
            (_, OpenError::TooShort) => LocalKmsError::Corrupt {
                path,
                what: "its sealed part is too short",
            },
            _ => LocalKmsError::Corrupt {
                path,
                what: "its KEKs fail authentication, so it was changed",
            },
        }
    }
}

fn open_body(
    cipher: &KcXaes256Gcm,
    kind: HeaderKind,
    parsed: &format::Parsed<'_>,
    path: &Path,
) -> Result<Keks, LocalKmsError> {
    let body = cipher
        .open(parsed.header_bytes, parsed.sealed)
        .map_err(|error| kind.refuse(error, path))?;
    format::parse_body(&body).map_err(|error| format_error(error, path))
}

fn seal(cipher: &KcXaes256Gcm, header: &[u8], keks: &Keks) -> Result<Zeroizing<Vec<u8>>, LocalKmsError> {
    let full = || LocalKmsError::Full { what: "MiB", max: 16 };
    let sealed = match cipher.seal(header, &format::write_body(keks)) {
        Ok(sealed) => sealed,
        Err(SealError::Random(error)) => return Err(error.into()),
        Err(_) => return Err(full()),
    };
    format::assemble(header, &sealed).ok_or_else(full)
}

fn format_error(error: FormatError, path: &Path) -> LocalKmsError {
    let path = path.to_path_buf();
    match error {
        FormatError::Corrupt(what) => LocalKmsError::Corrupt { path, what },
        FormatError::Version(found) => LocalKmsError::UnsupportedVersion { path, found },
    }
}

/// Runs blocking work (disk, locks, Argon2) on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalKmsError> + Send + 'static,
) -> Result<T, LocalKmsError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| LocalKmsError::NoRuntime)?;
    runtime
        .spawn_blocking(work)
        .await
        .map_err(LocalKmsError::Worker)?
}

fn use_error(error: UseError, operation: KmsOperation, kek: &KekId) -> KmsError {
    let error_of = |kind| KmsError::new(kind, PROVIDER, operation, kek);
    match error {
        UseError::Disabled => error_of(KmsErrorKind::KeyState).with_advice("enable it with `enable_kek`"),
        UseError::Integrity(why) => error_of(KmsErrorKind::Integrity).with_advice(why),
        UseError::Random(error) => error_of(KmsErrorKind::Unavailable).with_source(error),
        UseError::UnknownKek => error_of(KmsErrorKind::NotFound).with_advice(match kek.as_str() {
            name if name.starts_with("alias/") => {
                "the KEK file has no such alias: create it with `create_alias`, or open the file that has it"
            }
            _ => {
                "the KEK file does not have it, so this is probably not the file that keys were wrapped under: open that one, or \
                 restore it from a backup; a new KEK opens nothing that another one wrapped"
            }
        }),
    }
}

#[async_trait]
impl KeyManagementService for LocalKms {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.0.default_kek.as_ref()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let operation = KmsOperation::GenerateDataKey;
        let snapshot = self.snapshot_for(operation, kek).await?;
        let wrap = || {
            let key = DataKey::generate().map_err(UseError::Random)?;
            let wrapped = snapshot.keks.wrap(kek, &key, context)?;
            Ok(GeneratedDataKey::new(key, wrapped))
        };
        wrap().map_err(|error| use_error(error, operation, kek))
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        let operation = KmsOperation::WrapKey;
        let snapshot = self.snapshot_for(operation, kek).await?;
        let wrapped = snapshot.keks.wrap(kek, key, context);
        wrapped.map_err(|error| use_error(error, operation, kek))
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        let operation = KmsOperation::UnwrapKey;
        let snapshot = self.snapshot_for(operation, &wrapped.kek).await?;
        let key = snapshot.keks.unwrap(wrapped, context);
        key.map_err(|error| use_error(error, operation, &wrapped.kek))
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        let operation = KmsOperation::RewrapKey;
        let snapshot = self.snapshot_for(operation, to).await?;
        let key = snapshot.keks.unwrap(wrapped, context);
        let key = key.map_err(|error| use_error(error, operation, &wrapped.kek))?;
        let moved = snapshot.keks.wrap(to, &key, context);
        moved.map_err(|error| use_error(error, operation, to))
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        let operation = KmsOperation::DescribeKek;
        let snapshot = self.snapshot_for(operation, kek).await?;
        let description = snapshot.keks.describe(kek);
        description.ok_or_else(|| use_error(UseError::UnknownKek, operation, kek))
    }
}

/// Shows the path and the default KEK.
impl fmt::Debug for LocalKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKms")
            .field("path", &self.0.path)
            .field("default_kek", &self.0.default_kek)
            .finish_non_exhaustive()
    }
}
