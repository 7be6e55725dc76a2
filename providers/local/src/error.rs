//! Errors of opening and changing a KEK file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use encx_core::key::{KekId, NameError, RandomError};
use encx_core::kms::{KmsError, KmsErrorKind, KmsOperation};

pub(crate) const PROVIDER: &str = "local";

/// Says why a KEK file could not be opened or changed, and what to do.
///
/// Distinguishes a wrong passphrase or key, a damaged file, an unknown KEK and a disabled KEK. Never shows a secret.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LocalKmsError {
    /// An alias already names another KEK.
    #[error("the alias `{alias}` names the KEK `{kek}` already; choose another alias, or move this one")]
    AliasExists {
        /// The alias.
        alias: KekId,
        /// The KEK that it names.
        kek: KekId,
    },
    /// An alias does not have the form of one.
    #[error("an alias has the form `alias/NAME` with at most 256 bytes, and `{alias}` has not; rename it")]
    AliasForm {
        /// The alias.
        alias: KekId,
    },
    /// Argon2's parameters are out of bounds.
    #[error("Argon2's {parameter} is {min} to {max}, not {found}; change it")]
    Argon2Params {
        /// Which one.
        parameter: &'static str,
        /// The least that is allowed.
        min: u32,
        /// The most that is allowed.
        max: u32,
        /// What it was.
        found: u32,
    },
    /// The file is damaged, truncated, or not a KEK file.
    #[error(
        "the KEK file {} is corrupt: {what}; restore it from a backup, for nothing else brings its KEKs back",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file to be created already exists.
    #[error("{} exists already; open it, or choose another place", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is full.
    #[error("a KEK file holds at most {max} {what}; begin another file")]
    Full {
        /// What the file has too many of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// An operating system call failed.
    #[error("could not {action} {}; {}", path.display(), advice(action))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The key that protects the file is not usable as given.
    #[error(
        "the key from {origin} is not usable: {what}; a key is 32 random bytes as base64 or as 64 hex digits, and a passphrase is not \
         empty"
    )]
    Key {
        /// Where the key comes from.
        origin: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no file with the key or the passphrase.
    #[error(
        "there is no file {} with the key or the passphrase; is the path right, and its volume mounted? A KEK file that exists \
         opens only with the one that it was created with; for a new KEK file, create it",
        path.display()
    )]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// There is no file to open.
    #[error(
        "there is no KEK file {}; is the path right, and its volume mounted? If this is the first start, create it",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A name was refused.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The call was made outside a Tokio runtime.
    #[error("file access needs a Tokio runtime; call this from inside one")]
    NoRuntime,
    /// The path leads to a symbolic link, a directory or a device.
    #[error(
        "{} is no regular file (symbolic links are refused, since replacing the file would cut them off); give \
         the file's own path",
        path.display()
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file belongs to another user.
    #[error(
        "{} belongs to the user with the id {owner}, who can change it, and not to the one that runs this process \
         ({user}) or to root; run `chown {user}` on it, and consider whether its keys are known to others now",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// The id of the user that it belongs to.
        owner: u32,
        /// The id of the effective user of this process.
        user: u32,
    },
    /// Users other than the file's owner have a permission on it.
    #[error(
        "{} has mode {mode:04o}, so that others than its owner may use it; run `chmod 600` on it, and consider \
         whether its keys are known to others now",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file's protection differs from the caller's.
    #[error(
        "the KEK file {} is protected by {found}, but was opened with {given}; open it in the way that it was \
         created",
        path.display()
    )]
    Protection {
        /// The file.
        path: PathBuf,
        /// How the file is protected.
        found: &'static str,
        /// The caller's protection.
        given: &'static str,
    },
    /// The operating system provided no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Another file replaced the file while this process used it, possibly under the same passphrase or key.
    #[error(
        "{} is another KEK file than when it was opened; put the right one back, or if this is the right one, open it \
         again",
        path.display()
    )]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than a KEK file can be.
    #[error("{} is larger than a KEK file can be ({max} bytes); is the path right?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes of a KEK file.
        max: u64,
    },
    /// There is no such KEK.
    #[error("there is no KEK `{kek}` in the file; create it, or restore the file that has it")]
    UnknownKek {
        /// The KEK's id or alias.
        kek: KekId,
    },
    /// This platform does not support the requested protection.
    #[error("this platform has no file permissions to rely on; protect the file by a passphrase or a key")]
    UnsupportedPlatform,
    /// A newer version of `encx-local` wrote the file.
    #[error("the KEK file {} has version {found}, which this encx-local does not know; update it", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: u8,
    },
    /// The worker thread died.
    #[error("the work was stopped before its end; look whether the runtime shut down or a thread panicked")]
    Worker(#[source] tokio::task::JoinError),
    /// The key is not the one of the file.
    #[error(
        "this key does not open the KEK file {}; give the key that it was created with",
        path.display()
    )]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is not the one of the file.
    #[error(
        "this passphrase does not open the KEK file {}; give the one that it was created with",
        path.display()
    )]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
}

/// Says what to do about a failed call of the operating system.
fn advice(action: &str) -> &'static str {
    match action {
        "look at" | "open" | "read" => "may this process read it, and enter its directories?",
        "find" => "is there a current directory?",
        _ => "does its directory exist, and may this process write there?",
    }
}

impl fmt::Debug for LocalKmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}

impl LocalKmsError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn key(origin: impl Into<String>, what: &'static str) -> Self {
        let origin = origin.into();
        Self::Key { origin, what }
    }

    pub(crate) fn into_kms_error(self, operation: KmsOperation, kek: &KekId) -> KmsError {
        let kind = match &self {
            Self::UnknownKek { .. } => KmsErrorKind::NotFound,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                KmsErrorKind::AccessDenied
            }
            // The file's volume and randomness may become available again.
            Self::Io { .. }
            | Self::KeyMissing { .. }
            | Self::Missing { .. }
            | Self::Random(_)
            | Self::Worker(_) => KmsErrorKind::Unavailable,
            _ => KmsErrorKind::Configuration,
        };
        KmsError::new(kind, PROVIDER, operation, kek).with_source(self)
    }
}
