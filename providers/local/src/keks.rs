//! The KEKs of a file, in memory: look-up, changes and use.
//!
//! A wrap is 121 bytes:
//!
//! ```text
//! 01 version ‖ 16 material id ‖ 24 nonce ‖ 32 encrypted data key ‖ 16 tag ‖ 32 commitment
//! AAD = "encx/local-wrap/v1" ‖ the first 17 bytes ‖ u16 length ‖ KEK id ‖ canonical KMS context
//! ```
//!
//! sealed by KC-XAES-256-GCM under the material. The canonical KMS context is `u16 count ‖ {u16 length ‖ key ‖ u16
//! length ‖ value}*` of all pairs, including encx's three, sorted by the keys' UTF-8 bytes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use encx_core::key::{DataKey, KekId, RandomError, WrappedKey};
use encx_core::kms::{KekDescription, KekState, KmsContext};
use encx_suite::{KcXaes256Gcm, SealError};
use uuid::Uuid;

use crate::error::LocalKmsError;

pub(crate) const MAX_KEKS: usize = 1000;
pub(crate) const MAX_MATERIALS: usize = 1000;
pub(crate) const MAX_ALIASES: usize = 1000;

const WRAP_VERSION: u8 = 1;
/// Version and material id.
const WRAP_HEADER_LEN: usize = 17;

/// A KEK in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalKek {
    /// Its permanent id.
    pub kek: KekId,
    /// Whether it can be used.
    pub state: KekState,
    /// Its aliases, sorted.
    pub aliases: Vec<KekId>,
    /// The ids of its materials, in creation order. The last one wraps.
    pub materials: Vec<String>,
    /// Whether it is the file's default.
    pub is_default: bool,
}

/// All KEKs of a file. There is at least one.
pub(crate) struct Keks {
    pub(crate) keks: Vec<Kek>,
    pub(crate) default: usize,
    pub(crate) aliases: BTreeMap<KekId, usize>,
}

pub(crate) struct Kek {
    pub(crate) id: KekId,
    pub(crate) state: KekState,
    /// Never empty. The last one wraps.
    pub(crate) materials: Vec<Material>,
}

pub(crate) struct Material {
    id: Uuid,
    key: DataKey,
    /// Expanded on first use: most old material is never used.
    cipher: OnceLock<KcXaes256Gcm>,
}

/// Why a wrap could not be made or opened.
pub(crate) enum UseError {
    Disabled,
    Integrity(&'static str),
    Random(RandomError),
    UnknownKek,
}

impl Keks {
    /// Creates the KEKs of a new file: one, which is the default.
    pub(crate) fn new() -> Result<Self, RandomError> {
        Ok(Self {
            keks: vec![Kek::generate()?],
            default: 0,
            aliases: BTreeMap::new(),
        })
    }

    pub(crate) fn list(&self) -> Vec<LocalKek> {
        let describe = |(index, kek): (usize, &Kek)| LocalKek {
            kek: kek.id.clone(),
            state: kek.state,
            aliases: self
                .aliases
                .iter()
                .filter(|(_, of)| **of == index)
                .map(|(alias, _)| alias.clone())
                .collect(),
            materials: kek
                .materials
                .iter()
                .map(|material| material.id.to_string())
                .collect(),
            is_default: index == self.default,
        };
        self.keks.iter().enumerate().map(describe).collect()
    }

    pub(crate) fn create_kek(&mut self) -> Result<KekId, LocalKmsError> {
        room(self.keks.len(), "KEKs", MAX_KEKS)?;
        let kek = Kek::generate()?;
        let id = kek.id.clone();
        self.keks.push(kek);
        Ok(id)
    }

    pub(crate) fn create_alias(&mut self, alias: &KekId, kek: &KekId) -> Result<(), LocalKmsError> {
        let index = self.must_find(kek)?;
        match self.aliases.get(alias) {
            Some(named) if *named == index => Ok(()),
            Some(named) => Err(LocalKmsError::AliasExists {
                alias: alias.clone(),
                kek: self.keks[*named].id.clone(),
            }),
            None => self.move_alias(alias, kek),
        }
    }

    pub(crate) fn move_alias(&mut self, alias: &KekId, kek: &KekId) -> Result<(), LocalKmsError> {
        if !is_alias(alias) {
            return Err(LocalKmsError::AliasForm { alias: alias.clone() });
        }
        let index = self.must_find(kek)?;
        if !self.aliases.contains_key(alias) {
            room(self.aliases.len(), "aliases", MAX_ALIASES)?;
        }
        self.aliases.insert(alias.clone(), index);
        Ok(())
    }

    pub(crate) fn rotate_kek(&mut self, kek: &KekId) -> Result<String, LocalKmsError> {
        let index = self.must_find(kek)?;
        let materials = &mut self.keks[index].materials;
        room(materials.len(), "materials of one KEK", MAX_MATERIALS)?;
        let material = Material::generate()?;
        let id = material.id.to_string();
        materials.push(material);
        Ok(id)
    }

    pub(crate) fn set_state(&mut self, kek: &KekId, state: KekState) -> Result<(), LocalKmsError> {
        let index = self.must_find(kek)?;
        self.keks[index].state = state;
        Ok(())
    }

    pub(crate) fn set_default(&mut self, kek: &KekId) -> Result<(), LocalKmsError> {
        self.default = self.must_find(kek)?;
        Ok(())
    }

    pub(crate) fn default_kek(&self) -> Option<&KekId> {
        self.keks.get(self.default).map(|kek| &kek.id)
    }

    pub(crate) fn describe(&self, kek: &KekId) -> Option<KekDescription> {
        let kek = &self.keks[self.find(kek)?];
        let mut description = KekDescription::new(kek.id.clone(), kek.state);
        description.current_material = kek.materials.last().map(|material| material.id.to_string());
        Some(description)
    }

    /// Wraps under a KEK or an alias.
    pub(crate) fn wrap(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, UseError> {
        let kek = &self.keks[self.find(kek).ok_or(UseError::UnknownKek)?];
        let material = match (kek.state, kek.materials.last()) {
            (KekState::Enabled, Some(material)) => material,
            _ => return Err(UseError::Disabled),
        };
        let mut blob =
            Vec::with_capacity(WRAP_HEADER_LEN + KcXaes256Gcm::OVERHEAD + encx_core::key::DATA_KEY_LEN);
        blob.push(WRAP_VERSION);
        blob.extend_from_slice(material.id.as_bytes());
        let aad = wrap_aad(&blob, &kek.id, context);
        let sealed = match material.cipher().seal(&aad, key.expose()) {
            Ok(sealed) => sealed,
            Err(SealError::Random(error)) => return Err(UseError::Random(error)),
            Err(_) => return Err(UseError::Integrity("the data key could not be sealed")),
        };
        blob.extend_from_slice(&sealed);
        Ok(WrappedKey::new(kek.id.clone(), blob).with_material(material.id))
    }

    /// Unwraps with the KEK that the wrap names by its permanent id.
    pub(crate) fn unwrap(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, UseError> {
        // encx writes no alias into a wrap, and an alias can change its target: it finds no KEK.
        let kek = self
            .keks
            .iter()
            .find(|kek| kek.id == wrapped.kek)
            .ok_or(UseError::UnknownKek)?;
        if kek.state != KekState::Enabled {
            return Err(UseError::Disabled);
        }
        let (header, sealed) = wrapped
            .ciphertext
            .split_at_checked(WRAP_HEADER_LEN)
            .ok_or(UseError::Integrity("the wrap is cut short"))?;
        if header[0] != WRAP_VERSION {
            return Err(UseError::Integrity("the wrap's version is unknown"));
        }
        let material = kek
            .materials
            .iter()
            .find(|material| material.id.as_bytes() == &header[1..]);
        let material = material.ok_or(UseError::Integrity(
            "the KEK file has no such material of this KEK; if it was restored from a backup, find a newer one",
        ))?;
        let key = material
            .cipher()
            .open(&wrap_aad(header, &kek.id, context), sealed)
            .map_err(|_| UseError::Integrity("it was not wrapped like this by this KEK"))?;
        DataKey::copy_from(&key).map_err(|_| UseError::Integrity("it holds no data key"))
    }

    fn find(&self, kek: &KekId) -> Option<usize> {
        let by_alias = self.aliases.get(kek).copied();
        by_alias.or_else(|| self.keks.iter().position(|found| found.id == *kek))
    }

    fn must_find(&self, kek: &KekId) -> Result<usize, LocalKmsError> {
        self.find(kek)
            .ok_or_else(|| LocalKmsError::UnknownKek { kek: kek.clone() })
    }
}

impl Kek {
    fn generate() -> Result<Self, RandomError> {
        // A UUID of ASCII letters is a valid name, so the error cannot occur.
        #[allow(clippy::unwrap_used, reason = "the name is well formed")]
        let id = KekId::new(format!("local/{}", random_uuid()?)).unwrap();
        Ok(Self {
            id,
            state: KekState::Enabled,
            materials: vec![Material::generate()?],
        })
    }
}

impl Material {
    pub(crate) fn new(id: Uuid, key: DataKey) -> Self {
        Self {
            id,
            key,
            cipher: OnceLock::new(),
        }
    }

    fn generate() -> Result<Self, RandomError> {
        Ok(Self::new(random_uuid()?, DataKey::generate()?))
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn key(&self) -> &DataKey {
        &self.key
    }

    fn cipher(&self) -> &KcXaes256Gcm {
        self.cipher.get_or_init(|| KcXaes256Gcm::new(&self.key))
    }
}

pub(crate) fn is_alias(name: &KekId) -> bool {
    let name = name.as_str();
    name.len() <= 256 && name.strip_prefix("alias/").is_some_and(|rest| !rest.is_empty())
}

fn wrap_aad(header: &[u8], kek: &KekId, context: &KmsContext) -> Vec<u8> {
    // A KEK id has at most 2048 bytes.
    let len = u16::try_from(kek.as_str().len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let parts: [&[u8]; 5] = [
        b"encx/local-wrap/v1",
        header,
        &len,
        kek.as_str().as_bytes(),
        &context.canonical(),
    ];
    parts.concat()
}

fn room(len: usize, what: &'static str, max: usize) -> Result<(), LocalKmsError> {
    match len < max {
        true => Ok(()),
        false => Err(LocalKmsError::Full { what, max }),
    }
}

fn random_uuid() -> Result<Uuid, RandomError> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&DataKey::generate()?.expose()[..16]);
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_full_before_its_counts_overflow() {
        let mut keks = Keks::new().unwrap();
        let first = keks.keks[0].id.clone();
        (1..MAX_MATERIALS).for_each(|_| drop(keks.rotate_kek(&first).unwrap()));
        (1..MAX_KEKS).for_each(|_| drop(keks.create_kek().unwrap()));
        let alias = |n: usize| KekId::new(format!("alias/{n}")).unwrap();
        (0..MAX_ALIASES).for_each(|n| keks.create_alias(&alias(n), &first).unwrap());
        let last = keks.keks[MAX_KEKS - 1].id.clone();
        for result in [
            keks.create_kek().map(drop),
            keks.rotate_kek(&first).map(drop),
            keks.create_alias(&alias(MAX_ALIASES), &first),
            keks.move_alias(&alias(MAX_ALIASES), &first),
        ] {
            assert!(matches!(result, Err(LocalKmsError::Full { max: 1000, .. })));
        }
        keks.move_alias(&alias(0), &last).unwrap();
        let read = crate::format::parse_body(&crate::format::write_body(&keks))
            .ok()
            .unwrap();
        assert_eq!(read.list(), keks.list());
    }
}
