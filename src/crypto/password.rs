//! Passwords of a `Crypto`: hashing, verification, and verification for unknown users.

use std::pin::Pin;
use std::sync::Arc;

use encx_core::aad::{Aad, AsAad};
use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, Derivation, KeyUsage, Subkey, fill_from_os};
use zeroize::Zeroizing;

use super::search::{active_derivation_key, derivation_key_of};
use crate::cache::Entry;
use crate::crypto::{Crypto, CryptoBuilder};
use crate::error::Error;
use crate::password::{self, PasswordHash, PasswordParams, PasswordVerdict, Prepared, SALT_LEN};

/// A future that names no type of the caller, so that the compiler reports a wrong one once. Its allocation costs nothing
/// compared with Argon2.
type Hashing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl Crypto {
    /// Hashes a password with Argon2id, and binds the hash to its place: with
    /// [`Field::row`](crate::Field::row), to the row.
    ///
    /// The pepper is a separate key, wrapped by the KMS like those that encrypt. If the context has none yet, this
    /// makes it. A copy of the database alone does not suffice to test a guess.
    ///
    /// A password in UTF-8 is normalised first: Unicode spaces become U+0020, then NFC, as in RFC 8265
    /// (`OpaqueString`). So `ñ` is the same from every keyboard. Other bytes are hashed unchanged.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext, Field};
    /// # use encx::password::PasswordVerdict;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// const PASSWORD: Field = Field::new("users", "password");
    ///
    /// let login = EncryptionContext::builder().pair("purpose", "login").build()?;
    /// let hash = crypto.hash_password(&login, "correct horse", PASSWORD.row(7)).await?;
    ///
    /// match crypto.verify_password(&login, &hash, "correct horse", PASSWORD.row(7)).await? {
    ///     PasswordVerdict::Match { needs_rehash } => assert!(!needs_rehash),
    ///     PasswordVerdict::NoMatch => panic!("refuse the log-in"),
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::Password`], [`Error::Aad`]: the password is empty or longer than 4096 bytes, or the AAD cannot be used.
    /// - otherwise as [`encrypt`](Self::encrypt), without those about ciphertexts.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time. A hash being computed on a blocking thread is still computed to the end.
    pub fn hash_password<'a>(
        &'a self,
        context: &'a EncryptionContext,
        password: impl AsRef<[u8]>,
        aad: impl AsAad,
    ) -> Hashing<'a, PasswordHash> {
        let password = password::prepare(password.as_ref());
        let info = password::pepper_info(&aad.into_aad());
        Box::pin(async move { self.hash_prepared(context, password?.bytes, info?).await })
    }

    async fn hash_prepared(
        &self,
        context: &EncryptionContext,
        password: Zeroizing<Vec<u8>>,
        info: Vec<u8>,
    ) -> Result<PasswordHash, Error> {
        let entry = self.entry_of(context, KeyUsage::Pepper);
        let params = self.passwords.params;
        // Loaded before waiting for room, and again after it: the pepper may be withdrawn in between.
        drop(active_derivation_key(self.core(), &entry).await?);
        let room = self.passwords.room(params).await?;
        let key = active_derivation_key(self.core(), &entry).await?;
        let (id, pepper) = (key.id, key.derive(&info));
        // From here the derived pepper suffices; the key may leave memory.
        drop(key);
        let mut salt = [0; SALT_LEN];
        fill_from_os(&mut salt)?;
        let output = room.argon2id(pepper, password, salt).await??;
        Ok(output.into_hash(id, params, salt))
    }

    /// Verifies a password against the hash that was stored in this place.
    ///
    /// It takes Argon2's time, on a blocking thread, and waits while too many others run: see
    /// [`max_password_memory_mib`](CryptoBuilder::max_password_memory_mib). Outputs are compared in constant time. If the
    /// verdict says so, hash the password again and store the new hash.
    ///
    /// If a password that normalisation changes does not match, it is also tried unchanged, because earlier versions
    /// hashed it so. That is a second computation, only for such passwords; [`verify_nobody`](Self::verify_nobody)
    /// makes it as well. A match then has `needs_rehash`.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownKey`]: the context has no such pepper; most likely, the hash belongs to another context.
    /// - [`Error::Suspended`], [`Error::Compromised`], [`Error::Destroyed`], [`Error::Shredded`]: the pepper's state
    ///   forbids it.
    /// - otherwise as [`encrypt`](Self::encrypt), without those about ciphertexts.
    ///
    /// An error is not a verdict: deny access, although the password may be correct.
    ///
    /// # Cancellation
    ///
    /// As [`hash_password`](Self::hash_password).
    pub fn verify_password<'a>(
        &'a self,
        context: &'a EncryptionContext,
        hash: &'a PasswordHash,
        password: impl AsRef<[u8]>,
        aad: impl AsAad,
    ) -> Hashing<'a, PasswordVerdict> {
        let info = password::pepper_info(&aad.into_aad());
        let password = password::prepare(password.as_ref());
        Box::pin(async move {
            let info = info?;
            // A password that cannot be hashed matches no hash.
            let Ok(password) = password else {
                return Ok(PasswordVerdict::NoMatch);
            };
            self.verify_prepared(context, hash, password, info).await
        })
    }

    async fn verify_prepared(
        &self,
        context: &EncryptionContext,
        hash: &PasswordHash,
        Prepared { bytes, raw }: Prepared,
        info: Vec<u8>,
    ) -> Result<PasswordVerdict, Error> {
        let entry = self.entry_of(context, KeyUsage::Pepper);
        let is_prepared = self.is_of(&entry, hash, &info, bytes).await?;
        let is_raw = match raw.filter(|_| !is_prepared) {
            Some(raw) => self.is_of(&entry, hash, &info, raw).await?,
            None => false,
        };
        if !is_prepared && !is_raw {
            return Ok(PasswordVerdict::NoMatch);
        }
        let records = entry.records();
        let active = records
            .as_ref()
            .and_then(|records| records.active().ok().flatten());
        // Without an active pepper a new hash is impossible.
        let outdated = active.is_some_and(|active| {
            is_raw || active.id != hash.key_id() || hash.params() != self.passwords.params
        });
        Ok(PasswordVerdict::Match {
            needs_rehash: outdated,
        })
    }

    /// Computes Argon2id of one form of a password, and compares.
    async fn is_of(
        &self,
        entry: &Arc<Entry>,
        hash: &PasswordHash,
        info: &[u8],
        password: Zeroizing<Vec<u8>>,
    ) -> Result<bool, Error> {
        // As in hashing: once before waiting, once after.
        drop(derivation_key_of(self.core(), entry, hash.key_id()).await?);
        let room = self.passwords.room(hash.params()).await?;
        let key = derivation_key_of(self.core(), entry, hash.key_id()).await?;
        let pepper = key.derive(info);
        drop(key);
        let output = room.argon2id(pepper, password, *hash.salt()).await??;
        Ok(output.is_of(hash))
    }

    /// Takes the time of a verification, for a user who does not exist. Always returns [`PasswordVerdict::NoMatch`].
    ///
    /// Without it, the time of a log-in reveals which users exist. It takes as long as for a hash with the current
    /// parameters; hashes with others take longer or shorter until they are replaced. It makes no key.
    ///
    /// # Errors
    ///
    /// As [`verify_password`](Self::verify_password), for a hash under the active pepper; if none is active, under the
    /// newest that still verifies, or else under the newest.
    ///
    /// # Cancellation
    ///
    /// As [`hash_password`](Self::hash_password).
    pub async fn verify_nobody(
        &self,
        context: &EncryptionContext,
        password: impl AsRef<[u8]>,
    ) -> Result<PasswordVerdict, Error> {
        let Ok(Prepared { bytes, raw }) = password::prepare(password.as_ref()) else {
            return Ok(PasswordVerdict::NoMatch);
        };
        for password in [Some(bytes), raw].into_iter().flatten() {
            drop(self.pepper_of_unknown(context).await?);
            let room = self.passwords.room(self.passwords.params).await?;
            let pepper = self.pepper_of_unknown(context).await?;
            let _ = room.argon2id(pepper, password, [0; SALT_LEN]).await??;
        }
        Ok(PasswordVerdict::NoMatch)
    }

    async fn pepper_of_unknown(&self, context: &EncryptionContext) -> Result<Subkey, Error> {
        let info = password::pepper_info(&Aad::unbound())?;
        let entry = self.entry_of(context, KeyUsage::Pepper);
        let cache = self.core().cache();
        let records = cache.current_records(&entry).await?;
        // If existing users' hashes cannot be verified, this must fail too, or the error would reveal which users exist.
        let of_hashes = || records.iter().filter(|record| record.activated_at.is_some());
        let usable = of_hashes().rfind(|record| cache.limits.check_decrypts(record).is_ok());
        let active = records.active().ok().flatten();
        match active.or(usable).or_else(|| of_hashes().next_back()) {
            Some(record) => Ok(derivation_key_of(self.core(), &entry, record.id)
                .await?
                .derive(&info)),
            None => {
                // If the pepper is gone, no hash can be verified.
                records.active()?;
                Ok(Derivation::new(&DataKey::generate()?).derive(&info))
            }
        }
    }
}

impl CryptoBuilder {
    /// Sets how passwords are hashed from now on. Default: Argon2id with 19 MiB, 2 passes and 1 lane, as OWASP requires.
    ///
    /// Hashes with other parameters are verified with their own, and reported as in need of a new hash.
    pub fn password_params(mut self, params: PasswordParams) -> Self {
        self.passwords.params = params;
        self
    }

    /// Sets how much memory passwords may take at once, in MiB; others wait. Default: one password for each core, so 19
    /// MiB a core.
    ///
    /// It bounds what a wave of log-ins takes from the rest of the service. A value below the need of one password
    /// counts as that need.
    pub fn max_password_memory_mib(mut self, mib: u32) -> Self {
        self.passwords.max_memory_mib = Some(mib);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use encx_core::aad::Field;
    use encx_testkit::{MemoryKeyStore, MemoryKms};

    const PASSWORD: Field = Field::new("users", "password");
    const RIGHT: &str = "correct horse";

    /// The work determines the time and can be counted: Argon2 with the same parameters, once, for every user, and
    /// never on a thread of the runtime.
    #[test]
    fn every_attempt_takes_the_same_work_on_a_blocking_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let params = PasswordParams::insecure_new(72, 3, 2).unwrap();
            let (kms, store) = (MemoryKms::new(), MemoryKeyStore::new());
            let process = |params| {
                Crypto::builder(kms.clone(), store.clone())
                    .password_params(params)
                    .build()
            };
            let crypto = process(params).await.unwrap();
            let login = EncryptionContext::from_pairs([("purpose", "login")]).unwrap();
            let here = thread::current().id();
            let assert_work = |crypto: &Crypto, expected: &[PasswordParams]| {
                let (found, threads): (Vec<_>, Vec<_>) = crypto.passwords.take_computed().into_iter().unzip();
                assert_eq!(found, expected);
                assert!(threads.iter().all(|thread| *thread != here));
            };
            let no_user = async |crypto: &Crypto, password: &str| {
                let verdict = crypto.verify_nobody(&login, password).await.unwrap();
                assert_eq!(verdict, PasswordVerdict::NoMatch);
            };
            // Before there is a pepper.
            no_user(&crypto, RIGHT).await;
            assert_work(&crypto, &[params]);
            let stored = crypto.hash_password(&login, RIGHT, PASSWORD.row(7)).await;
            let stored = stored.unwrap();
            assert_work(&crypto, &[params]);
            let verify = async |crypto: &Crypto, password: &str, row: i64| {
                let verdict = crypto.verify_password(&login, &stored, password, PASSWORD.row(row));
                verdict.await.unwrap().is_match()
            };
            for (password, row) in [(RIGHT, 7), ("wrong", 7), (RIGHT, 8), ("w", 9)] {
                assert_eq!(
                    verify(&crypto, password, row).await,
                    (password, row) == (RIGHT, 7)
                );
                assert_work(&crypto, &[params]);
                no_user(&crypto, password).await;
                assert_work(&crypto, &[params]);
            }
            // An invalid password is refused without work for every user, and so reveals nothing about which users exist.
            for none in ["", &"x".repeat(4097)] {
                assert!(!verify(&crypto, none, 7).await);
                no_user(&crypto, none).await;
                assert_work(&crypto, &[]);
            }
            // A password that normalisation changes is tried twice for every user; a correct one once.
            let decomposed = "man\u{303}ana";
            assert!(!verify(&crypto, decomposed, 7).await);
            assert_work(&crypto, &[params; 2]);
            no_user(&crypto, decomposed).await;
            assert_work(&crypto, &[params; 2]);
            let of_decomposed = crypto
                .hash_password(&login, decomposed, PASSWORD.row(7))
                .await
                .unwrap();
            assert_work(&crypto, &[params]);
            for typed in [decomposed, "ma\u{f1}ana"] {
                let verdict = crypto
                    .verify_password(&login, &of_decomposed, typed, PASSWORD.row(7))
                    .await;
                assert_eq!(verdict.unwrap(), PasswordVerdict::Match { needs_rehash: false });
                assert_work(&crypto, &[params]);
            }
            // A hash is verified with its own parameters, an unknown user with the current ones.
            let today = PasswordParams::insecure_new(96, 2, 1).unwrap();
            let later = process(today).await.unwrap();
            assert!(verify(&later, RIGHT, 7).await);
            no_user(&later, RIGHT).await;
            assert_work(&later, &[params, today]);
        });
    }
}
