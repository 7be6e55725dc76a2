//! The answers of an in-memory KMS without an injected fault.

use encx_core::key::{DATA_KEY_LEN, DataKey, KekId, WrappedKey, fill_from_os};
use encx_core::kms::{KekState, KmsContext, KmsError, KmsErrorKind, KmsOperation};
use hmac::Mac as _;

use super::{Kek, PROVIDER, State};

impl State {
    /// Finds a KEK by its id or an alias.
    pub(super) fn find(&self, operation: KmsOperation, kek: &KekId) -> Result<(&KekId, &Kek), KmsError> {
        let id = self.aliases.get(kek).unwrap_or(kek);
        let found = self.keks.get_key_value(id);
        let (id, found) =
            found.ok_or_else(|| KmsError::new(KmsErrorKind::NotFound, PROVIDER, operation, kek))?;
        match found.fault {
            Some(kind) => Err(KmsError::new(kind, PROVIDER, operation, kek).with_advice("a test ordered it")),
            None => Ok((id, found)),
        }
    }

    fn find_enabled(&self, operation: KmsOperation, kek: &KekId) -> Result<(&KekId, &Kek), KmsError> {
        match self.find(operation, kek)? {
            found if found.1.state == KekState::Enabled => Ok(found),
            _ => Err(KmsError::new(KmsErrorKind::KeyState, PROVIDER, operation, kek)),
        }
    }

    /// Wraps as `16 material id ‖ 16 nonce ‖ 32 body ‖ 32 tag`. A test cipher: do not store data under it.
    pub(super) fn wrap(
        &self,
        operation: KmsOperation,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        let (id, found) = self.find_enabled(operation, kek)?;
        let fault = |kind| KmsError::new(kind, PROVIDER, operation, kek);
        let material = found
            .materials
            .last()
            .ok_or_else(|| fault(KmsErrorKind::Unavailable))?;
        let mut nonce = [0; 16];
        fill_from_os(&mut nonce).map_err(|error| fault(KmsErrorKind::Unavailable).with_source(error))?;
        let mut blob = [material.id.into_bytes(), nonce].concat();
        let mut masked = [0; DATA_KEY_LEN];
        material.mask(&nonce, key.expose(), &mut masked);
        blob.extend_from_slice(&masked);
        let tag = material.tag(id, &blob, context).finalize().into_bytes();
        blob.extend_from_slice(&tag);
        Ok(WrappedKey::new(id.clone(), blob).with_material(material.id))
    }

    pub(super) fn unwrap(
        &self,
        operation: KmsOperation,
        wrapped: &WrappedKey,
        context: &KmsContext,
    ) -> Result<DataKey, KmsError> {
        let integrity = || KmsError::new(KmsErrorKind::Integrity, PROVIDER, operation, &wrapped.kek);
        let (id, found) = self.find_enabled(operation, &wrapped.kek)?;
        let (body, tag) = wrapped.ciphertext.split_at_checked(64).ok_or_else(integrity)?;
        let material = found
            .materials
            .iter()
            .find(|material| material.id.as_bytes() == &body[..16])
            .ok_or_else(integrity)?;
        material
            .tag(id, body, context)
            .verify_slice(tag)
            .map_err(|_| integrity())?;
        DataKey::try_fill(|key| {
            material.mask(&body[16..32], &body[32..], key);
            Ok(())
        })
    }
}
