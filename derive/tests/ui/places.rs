//! Calls whose AAD does not say where the value belongs: the field without a row, a bare id, an `Option`, batches.

use encx::{Ciphertext, Crypto, EncryptionContext, Field, Keyring};

const SSN: Field = Field::new("users", "ssn");

struct User {
    id: Option<i64>,
}

async fn one(crypto: &Crypto, context: &EncryptionContext, user: &User, sealed: &Ciphertext) {
    let _ = crypto.encrypt(context, "123", SSN).await;
    let _ = crypto.encrypt(context, "123", &SSN).await;
    let _ = crypto.encrypt(context, "123", 7_i64).await;
    let _ = crypto.decrypt(context, sealed, "7").await;
    let _ = crypto.decrypt(context, sealed, user.id).await;
    let _ = crypto.decrypt(context, sealed, user.id.map(|id| SSN.row(id))).await;
    let _ = crypto.decrypt(context, sealed, SSN.row(user.id)).await;
    let _ = crypto.hash_password(context, "secret", SSN).await;
}

async fn hot(keyring: &Keyring, sealed: &Ciphertext, buffer: &mut Vec<u8>) {
    let _ = keyring.encrypt("123", SSN).await;
    let _ = keyring.try_decrypt(sealed, 7);
    let _ = keyring.encrypt_into("123", SSN, buffer).await;
    let _ = keyring.decrypt_in_place(buffer, SSN).await;
}

async fn many(crypto: &Crypto, keyring: &Keyring, context: &EncryptionContext, sealed: &Ciphertext) {
    let _ = crypto.encrypt_many([(context, "123", SSN)]).await;
    let _ = crypto.decrypt_many([(context, sealed, 7)]).await;
    let _ = keyring.encrypt_many([("123", SSN)]).await;
    let _ = keyring.decrypt_many([(sealed, Some(SSN.row(7)))]).await;
}

fn main() {}
