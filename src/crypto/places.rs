//! In which of several places a ciphertext opens: for walks that say where a value belongs.

use encx_core::aad::Aad;
use encx_core::ciphertext::Ciphertext;
use encx_core::context::EncryptionContext;

use super::Crypto;
use crate::cache::Later;
use crate::error::Error;

impl Crypto {
    /// Returns the index of the first of these places in which a ciphertext opens under a context. For walks.
    ///
    /// It is a question about a value that was refused before: these refusals are not counted, and no event tells of them.
    #[doc(hidden)]
    pub async fn find_place(
        &self,
        context: &EncryptionContext,
        ciphertext: &Ciphertext,
        places: &[Aad],
    ) -> Result<Option<usize>, Error> {
        self.core.check_suite(ciphertext.suite())?;
        let entry = self.entry(context);
        let key = self.core.cache().key_by_id(&entry, ciphertext.key_id()).await?;
        let opens = |aad: &Aad| {
            let mut later = Later::default();
            let opened = key.open(None, ciphertext, &mut aad.clone(), &mut later);
            later.forget();
            opened.is_ok()
        };
        Ok(places.iter().position(opens))
    }
}
