//! What protects a KEK file: a passphrase, a key, or nothing but its permissions.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encx_core::key::DataKey;
use zeroize::Zeroizing;

use crate::argon2_params::{Argon2Params, SALT_LEN};
use crate::disk;
use crate::error::LocalKmsError;
use crate::format::{FILE_ID_LEN, Header};

/// The protection of a KEK file. Wiped when dropped; prints no secret.
pub struct Protection(Kind);

enum Kind {
    Key(DataKey),
    KeyEnv(String),
    KeyFile(PathBuf),
    Passphrase(Zeroizing<String>, Argon2Params),
    PassphraseFile(PathBuf),
    PermissionsOnly,
}

impl Protection {
    /// Protects the file with a passphrase, through Argon2id with [`Argon2Params::default`].
    ///
    /// The file is only as safe as the passphrase is hard to guess: generate one, such as six random words.
    #[must_use]
    pub fn passphrase(passphrase: impl Into<String>) -> Self {
        Self::passphrase_with(passphrase, Argon2Params::default())
    }

    /// Protects the file with a passphrase, through Argon2id with other parameters.
    ///
    /// They apply when a file is created; opening one uses the parameters in the file.
    #[must_use]
    pub fn passphrase_with(passphrase: impl Into<String>, params: Argon2Params) -> Self {
        Self(Kind::Passphrase(Zeroizing::new(passphrase.into()), params))
    }

    /// Protects the file with a passphrase in another file, through Argon2id with [`Argon2Params::default`]. A line
    /// break at its end is removed.
    ///
    /// It is read when the KEK file is opened. It is refused if it belongs to neither this process's user nor root, or
    /// if its group or others have any permission on it. It may be a symbolic link, as mounted secrets are. Do not keep
    /// it with the KEK file or its backups.
    #[must_use]
    pub fn passphrase_from_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::PassphraseFile(path.into()))
    }

    /// Protects the file with a key of 256 random bits.
    ///
    /// Use one key for one file. A handle refuses another file in place of the one that it opened, even under the same
    /// key. But when opening, it must accept any file under the key: if a key protects several files, an attacker who
    /// can write the directory can choose among them, and among older copies of each.
    #[must_use]
    pub fn key(key: DataKey) -> Self {
        Self(Kind::Key(key))
    }

    /// Protects the file with a key in an environment variable: 32 random bytes as base64 (either alphabet, padded or
    /// not) or as 64 hex digits.
    ///
    /// It is read when the KEK file is opened. Use one key for one file, as explained at [`key`](Self::key).
    #[must_use]
    pub fn key_from_env(variable: impl Into<String>) -> Self {
        Self(Kind::KeyEnv(variable.into()))
    }

    /// Protects the file with a key in another file: 32 random bytes as base64 (either alphabet, padded or not) or as
    /// 64 hex digits, with optional white space around it.
    ///
    /// It is read when the KEK file is opened. It is refused if it belongs to neither this process's user nor root, or
    /// if its group or others have any permission on it. It may be a symbolic link, as mounted secrets are. Do not keep
    /// it with the KEK file or its backups. Use one key for one file, as explained at [`key`](Self::key).
    #[must_use]
    pub fn key_from_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::KeyFile(path.into()))
    }

    /// Relies on the file's permissions alone: the key that encrypts the KEKs is in the same file.
    ///
    /// <div class="warning">
    ///
    /// Anyone who can read the file, or a backup of it, has the KEKs. This detects accidental damage and protects
    /// against nothing else. It is for development and tests.
    ///
    /// </div>
    #[must_use]
    pub fn insecure_file_permissions_only() -> Self {
        Self(Kind::PermissionsOnly)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.0 {
            Kind::Key(_) | Kind::KeyEnv(_) | Kind::KeyFile(_) => Header::KEY,
            Kind::Passphrase(..) | Kind::PassphraseFile(_) => Header::PASSPHRASE,
            Kind::PermissionsOnly => Header::PERMISSIONS_ONLY,
        }
    }

    /// Creates the header of a new file.
    pub(crate) fn new_header(&self) -> Result<Header, LocalKmsError> {
        Ok(match &self.0 {
            Kind::Key(_) | Kind::KeyEnv(_) | Kind::KeyFile(_) => Header::Key {
                file_id: random::<FILE_ID_LEN>()?,
            },
            Kind::Passphrase(_, params) => Header::Passphrase {
                params: *params,
                salt: random::<SALT_LEN>()?,
            },
            Kind::PassphraseFile(_) => Header::Passphrase {
                params: Argon2Params::default(),
                salt: random::<SALT_LEN>()?,
            },
            Kind::PermissionsOnly => Header::PermissionsOnly {
                key: DataKey::generate()?,
            },
        })
    }

    /// Finds the key of a file with this header. Needs Argon2's time and memory, so it runs on a blocking thread.
    pub(crate) fn file_key(&self, header: &Header, path: &Path) -> Result<DataKey, LocalKmsError> {
        match (&self.0, header) {
            (Kind::Passphrase(passphrase, _), Header::Passphrase { params, salt }) => {
                params.derive(passphrase, salt)
            }
            (Kind::PassphraseFile(path), Header::Passphrase { params, salt }) => {
                params.derive(&passphrase_from_file(path)?, salt)
            }
            (Kind::Key(key), Header::Key { .. }) => copy(key),
            (Kind::KeyEnv(variable), Header::Key { .. }) => key_from_env(variable),
            (Kind::KeyFile(path), Header::Key { .. }) => key_from_file(path),
            (Kind::PermissionsOnly, Header::PermissionsOnly { key }) if cfg!(unix) => copy(key),
            (Kind::PermissionsOnly, Header::PermissionsOnly { .. }) => {
                Err(LocalKmsError::UnsupportedPlatform)
            }
            _ => Err(LocalKmsError::Protection {
                path: path.to_path_buf(),
                found: header.name(),
                given: self.name(),
            }),
        }
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Key(_) | Kind::KeyEnv(_) | Kind::KeyFile(_) => "Protection::Key([REDACTED])",
            Kind::Passphrase(..) | Kind::PassphraseFile(_) => "Protection::Passphrase([REDACTED])",
            Kind::PermissionsOnly => "Protection::InsecureFilePermissionsOnly",
        })
    }
}

/// Draws up to 32 bytes from the operating system.
fn random<const N: usize>() -> Result<[u8; N], LocalKmsError> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&DataKey::generate()?.expose()[..N]);
    Ok(bytes)
}

fn copy(key: &DataKey) -> Result<DataKey, LocalKmsError> {
    DataKey::copy_from(key.expose()).map_err(|_| LocalKmsError::key("the caller", "it has not 32 bytes"))
}

fn key_from_env(variable: &str) -> Result<DataKey, LocalKmsError> {
    let origin = || format!("the environment variable `{variable}`");
    match std::env::var(variable) {
        Ok(text) => parse_key(&Zeroizing::new(text), origin),
        Err(std::env::VarError::NotPresent) => Err(LocalKmsError::key(origin(), "it is not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(LocalKmsError::key(origin(), "it is no text")),
    }
}

fn key_from_file(path: &Path) -> Result<DataKey, LocalKmsError> {
    let origin = || format!("the file {}", path.display());
    let bytes = disk::read_key_file(path)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse_key(text, origin),
        Err(_) => Err(LocalKmsError::key(origin(), "it is no text")),
    }
}

fn passphrase_from_file(path: &Path) -> Result<Zeroizing<String>, LocalKmsError> {
    let unusable = |what| LocalKmsError::key(format!("the file {}", path.display()), what);
    let bytes = disk::read_key_file(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("it is no text"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let passphrase = line.strip_suffix('\r').unwrap_or(line);
    if passphrase.is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(Zeroizing::new(passphrase.to_owned()))
}

/// Parses a key's text. The forms are unambiguous: 32 bytes are 64 digits of hex, and 43 or 44 of base64.
fn parse_key(text: &str, origin: impl Fn() -> String) -> Result<DataKey, LocalKmsError> {
    let text = text.trim();
    let refuse = |what| LocalKmsError::key(origin(), what);
    DataKey::try_fill(|key| {
        // Larger than a key, to detect one that is too long; the buffer never grows, so nothing is left behind.
        let mut bytes = Zeroizing::new([0; 64]);
        let len = match text.len() {
            0 => return Err(refuse("it is empty")),
            64 => decode_hex(text, bytes.as_mut_slice()).ok_or_else(|| refuse("it is not hex"))?,
            43 | 44 => [alphabet::STANDARD, alphabet::URL_SAFE]
                .iter()
                .find_map(|alphabet| {
                    let config =
                        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
                    let engine = GeneralPurpose::new(alphabet, config);
                    engine.decode_slice(text, bytes.as_mut_slice()).ok()
                })
                .ok_or_else(|| refuse("it is not base64"))?,
            _ => return Err(refuse("it has the wrong length")),
        };
        if len != key.len() {
            return Err(refuse("it has not 32 bytes"));
        }
        key.copy_from_slice(&bytes[..len]);
        Ok(())
    })
}

fn decode_hex(text: &str, bytes: &mut [u8]) -> Option<usize> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(text.len() / 2)
}
