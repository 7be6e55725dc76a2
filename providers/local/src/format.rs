//! The bytes of a KEK file: parsing and writing, without cryptography except the checksum.
//!
//! All integers are big-endian. A file is
//!
//! ```text
//! header ‖ u32 length of sealed ‖ sealed ‖ 32 SHA-256 of all bytes before
//!
//! header  = 8 "encx-kek" ‖ 01 version ‖ protection
//! protection
//!         = 01 ‖ u32 Argon2 memory in KiB ‖ u32 passes ‖ u32 lanes ‖ 16 salt     a passphrase
//!         | 02 ‖ 16 file id                                                      a key of 32 bytes
//!         | 03 ‖ 32 key                                                          file permissions alone
//! sealed  = 24 nonce ‖ encrypted body ‖ 16 tag ‖ 32 commitment
//! body    = u16 count of KEKs ‖ KEK*
//!           ‖ u16 index of the default KEK
//!           ‖ u16 count of aliases ‖ {u16 length ‖ alias ‖ u16 index of its KEK}*
//! KEK     = u16 length ‖ id ‖ 01 enabled or 02 disabled
//!           ‖ u16 count of materials ‖ {16 material id ‖ 32 key}*
//! ```
//!
//! `sealed` is KC-XAES-256-GCM under the key of the protection, with the whole header as AAD. For a passphrase, the key
//! is Argon2id (version 0x13, no secret, no associated data) of its UTF-8 bytes, 32 bytes long.
//!
//! The header is written when the file is created and never changes. Salt, file id and key are random, so no two files
//! have the same header: a process that has a file open detects by it that another file has replaced it.
//!
//! Indices count from 0. KEKs are in creation order, and so are a KEK's materials, of which the last one wraps. Aliases
//! are sorted by their UTF-8 bytes. Ids and aliases are UTF-8 and distinct; within one KEK, material ids are distinct
//! too. There are 1 to 1000 KEKs, 1 to 1000 materials of each, and 0 to 1000 aliases. An id has 1 to 2048 bytes; an
//! alias begins with `alias/` and has 7 to 256. The file has at most 16 MiB. Argon2's bounds are 128 to 1 048 576 KiB,
//! 1 to 16 passes and 1 to 16 lanes. Trailing bytes are not allowed.
//!
//! The checksum protects against nothing: it distinguishes damage from a wrong passphrase, which the commitment alone
//! could not. Later versions keep magic, version byte and checksum in place.

use std::collections::BTreeMap;

use encx_core::key::{DATA_KEY_LEN, DataKey, KekId};
use encx_core::kms::KekState;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::argon2_params::{Argon2Params, SALT_LEN};
use crate::keks::{Kek, Keks, MAX_ALIASES, MAX_KEKS, MAX_MATERIALS, Material, is_alias};

/// The most bytes of a file.
pub(crate) const MAX_FILE_LEN: u64 = 16 << 20;

pub(crate) const FILE_ID_LEN: usize = 16;

const MAGIC: &[u8; 8] = b"encx-kek";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 32;

/// The part before the sealed part: the protection of the file.
pub(crate) enum Header {
    Key {
        file_id: [u8; FILE_ID_LEN],
    },
    Passphrase {
        params: Argon2Params,
        salt: [u8; SALT_LEN],
    },
    PermissionsOnly {
        key: DataKey,
    },
}

/// Why bytes are not a KEK file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatError {
    Corrupt(&'static str),
    Version(u8),
}

/// A parsed file. Nothing is authenticated yet.
pub(crate) struct Parsed<'a> {
    pub(crate) header: Header,
    pub(crate) header_bytes: &'a [u8],
    pub(crate) sealed: &'a [u8],
}

impl Header {
    pub(crate) const KEY: &'static str = "a key";
    pub(crate) const PASSPHRASE: &'static str = "a passphrase";
    pub(crate) const PERMISSIONS_ONLY: &'static str = "file permissions alone";

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Key { .. } => Self::KEY,
            Self::Passphrase { .. } => Self::PASSPHRASE,
            Self::PermissionsOnly { .. } => Self::PERMISSIONS_ONLY,
        }
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Capacity for the longest header, so that no reallocation leaves a key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        match self {
            Self::Passphrase { params, salt } => {
                bytes.push(1);
                for number in params.to_array() {
                    bytes.extend_from_slice(&number.to_be_bytes());
                }
                bytes.extend_from_slice(salt);
            }
            Self::Key { file_id } => {
                bytes.push(2);
                bytes.extend_from_slice(file_id);
            }
            Self::PermissionsOnly { key } => {
                bytes.push(3);
                bytes.extend_from_slice(key.expose());
            }
        }
        bytes
    }
}

/// Parses a file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, FormatError> {
    let corrupt = FormatError::Corrupt;
    if !bytes.starts_with(MAGIC) {
        return Err(corrupt("it does not begin as KEK files do"));
    }
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM_LEN>()
        .ok_or(corrupt("it is cut short"))?;
    if <[u8; CHECKSUM_LEN]>::from(Sha256::digest(content)) != *checksum {
        return Err(corrupt("its checksum is wrong, so it was cut short or changed"));
    }
    let mut reader = Reader(content);
    reader.take(MAGIC.len())?;
    let version = reader.u8()?;
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let header = match reader.u8()? {
        1 => Header::Passphrase {
            params: Argon2Params::new(reader.u32()?, reader.u32()?, reader.u32()?)
                .map_err(|_| corrupt("its Argon2 parameters are out of bounds"))?,
            salt: *reader.array()?,
        },
        2 => Header::Key {
            file_id: *reader.array()?,
        },
        3 => Header::PermissionsOnly { key: reader.key()? },
        _ => return Err(corrupt("it is protected in an unknown way")),
    };
    let header_bytes = &content[..content.len() - reader.0.len()];
    let len = usize::try_from(reader.u32()?).map_err(|_| corrupt("a length is impossible"))?;
    let sealed = reader.take(len)?;
    reader.finish()?;
    Ok(Parsed {
        header,
        header_bytes,
        sealed,
    })
}

/// Assembles a file; `None` if it would be too large.
pub(crate) fn assemble(header: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let capacity = header.len() + 4 + sealed.len() + CHECKSUM_LEN;
    if u64::try_from(capacity).ok()? > MAX_FILE_LEN {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&u32::try_from(sealed.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(sealed);
    let checksum = Sha256::digest(&*bytes);
    bytes.extend_from_slice(&checksum);
    Some(bytes)
}

/// Parses the plaintext of the sealed part.
pub(crate) fn parse_body(body: &[u8]) -> Result<Keks, FormatError> {
    let corrupt = FormatError::Corrupt;
    let mut reader = Reader(body);
    let mut keks: Vec<Kek> = Vec::new();
    for _ in 0..reader.count(1, MAX_KEKS)? {
        let id = reader.name(2048)?;
        let state = match reader.u8()? {
            1 => KekState::Enabled,
            2 => KekState::Disabled,
            _ => return Err(corrupt("a KEK's state is unknown")),
        };
        let mut materials: Vec<Material> = Vec::new();
        for _ in 0..reader.count(1, MAX_MATERIALS)? {
            let id = Uuid::from_bytes(*reader.array()?);
            if materials.iter().any(|material| material.id() == id) {
                return Err(corrupt("two materials of a KEK have one id"));
            }
            materials.push(Material::new(id, reader.key()?));
        }
        if is_alias(&id) || keks.iter().any(|kek| kek.id == id) {
            return Err(corrupt("two KEKs have one id, or a KEK an alias's"));
        }
        keks.push(Kek { id, state, materials });
    }
    let default = reader.index(keks.len())?;
    let mut aliases = BTreeMap::new();
    for _ in 0..reader.count(0, MAX_ALIASES)? {
        let alias = reader.name(256)?;
        let kek = reader.index(keks.len())?;
        if !is_alias(&alias) || aliases.last_key_value().is_some_and(|(last, _)| *last >= alias) {
            return Err(corrupt("an alias has the wrong form or is out of order"));
        }
        aliases.insert(alias, kek);
    }
    reader.finish()?;
    Ok(Keks {
        keks,
        default,
        aliases,
    })
}

/// Writes the plaintext of the sealed part. The counts were bounded when KEKs, materials and aliases were added.
pub(crate) fn write_body(keks: &Keks) -> Zeroizing<Vec<u8>> {
    let kek_len = |kek: &Kek| 5 + kek.id.as_str().len() + 48 * kek.materials.len();
    let len: usize = keks.keks.iter().map(kek_len).sum::<usize>()
        + keks
            .aliases
            .keys()
            .map(|alias| 4 + alias.as_str().len())
            .sum::<usize>();
    // Never grows below: a reallocation would leave keys behind in freed memory.
    let mut body = Zeroizing::new(Vec::with_capacity(6 + len));
    put_u16(&mut body, keks.keks.len());
    for kek in &keks.keks {
        put_name(&mut body, &kek.id);
        body.push(if kek.state == KekState::Enabled { 1 } else { 2 });
        put_u16(&mut body, kek.materials.len());
        for material in &kek.materials {
            body.extend_from_slice(material.id().as_bytes());
            body.extend_from_slice(material.key().expose());
        }
    }
    put_u16(&mut body, keks.default);
    put_u16(&mut body, keks.aliases.len());
    for (alias, kek) in &keks.aliases {
        put_name(&mut body, alias);
        put_u16(&mut body, *kek);
    }
    debug_assert_eq!(body.len(), 6 + len);
    body
}

fn put_name(body: &mut Vec<u8>, name: &KekId) {
    put_u16(body, name.as_str().len());
    body.extend_from_slice(name.as_str().as_bytes());
}

fn put_u16(body: &mut Vec<u8>, number: usize) {
    // Every number is at most 2048; a larger one is refused when read back.
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    body.extend_from_slice(&number.to_be_bytes());
}

/// Takes bytes off the front, at most as many as there are.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    const SHORT: FormatError = FormatError::Corrupt("it ends too early");

    fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], FormatError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(|[byte]| *byte)
    }

    fn u16(&mut self) -> Result<usize, FormatError> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn key(&mut self) -> Result<DataKey, FormatError> {
        let bytes = self.array::<DATA_KEY_LEN>()?;
        DataKey::copy_from(bytes).map_err(|_| Self::SHORT)
    }

    fn count(&mut self, min: usize, max: usize) -> Result<usize, FormatError> {
        match self.u16()? {
            count if (min..=max).contains(&count) => Ok(count),
            _ => Err(FormatError::Corrupt("a count is out of bounds")),
        }
    }

    fn index(&mut self, len: usize) -> Result<usize, FormatError> {
        match self.u16()? {
            index if index < len => Ok(index),
            _ => Err(FormatError::Corrupt("it refers to a KEK that it does not have")),
        }
    }

    fn name(&mut self, max: usize) -> Result<KekId, FormatError> {
        let len = self.u16()?;
        let name = std::str::from_utf8(self.take(len)?).ok();
        name.filter(|name| name.len() <= max)
            .and_then(|name| KekId::new(name).ok())
            .ok_or(FormatError::Corrupt("a name is not one"))
    }

    fn finish(&self) -> Result<(), FormatError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(FormatError::Corrupt("it goes on after its end")),
        }
    }
}

#[cfg(test)]
mod tests;
