//! The cold start: the first use of many tenants in sequence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use encx::{Ciphertext, Crypto, EncryptionContext, Error, Field};
use encx_testkit::{MemoryKeyStore, MemoryKms};

const SSN: Field = Field::new("users", "ssn");

/// How long the first use of one tenant takes.
#[derive(Clone, Copy)]
pub(crate) struct Cold {
    /// To encrypt: create a data key, wrap it, store it; no unwrap.
    pub(crate) encrypt: Duration,
    /// To decrypt, as in a second process: load the key and unwrap it.
    pub(crate) decrypt: Duration,
}

/// Uses this many tenants for the first time, with a KMS and a key store in memory, so that only encx's own time
/// remains.
pub(crate) fn measure(tenants: u32) -> Cold {
    // On one thread, because waking another thread takes longer than the measured work.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let contexts: Vec<_> = (0..tenants)
        .map(|tenant| {
            let context = EncryptionContext::builder().pair("tenantId", tenant);
            context.build().expect("the context is valid")
        })
        .collect();
    let (kms, store) = (Arc::new(MemoryKms::new()), Arc::new(MemoryKeyStore::new()));
    let measured = runtime.block_on(async {
        let first = Crypto::builder(Arc::clone(&kms), Arc::clone(&store))
            .build()
            .await?;
        let begin = Instant::now();
        let sealed = encrypt_all(&first, &contexts).await?;
        let encrypt = begin.elapsed() / tenants;

        let second = Crypto::builder(kms, store).build().await?;
        let begin = Instant::now();
        decrypt_all(&second, &contexts, &sealed).await?;
        let decrypt = begin.elapsed() / tenants;
        Ok::<_, Error>(Cold { encrypt, decrypt })
    });
    measured.expect("every tenant is used")
}

async fn encrypt_all(crypto: &Crypto, contexts: &[EncryptionContext]) -> Result<Vec<Ciphertext>, Error> {
    let mut sealed = Vec::with_capacity(contexts.len());
    for context in contexts {
        sealed.push(crypto.encrypt(context, "123-45-6789", SSN.row(1)).await?);
    }
    Ok(sealed)
}

async fn decrypt_all(
    crypto: &Crypto,
    contexts: &[EncryptionContext],
    sealed: &[Ciphertext],
) -> Result<(), Error> {
    for (context, sealed) in contexts.iter().zip(sealed) {
        crypto.decrypt(context, sealed, SSN.row(1)).await?;
    }
    Ok(())
}
