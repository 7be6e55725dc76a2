//! A refused ciphertext reports its place, through every API, and is counted by kind.

use encx::keys::{KeyCheck, KeyState};
use encx::suite::Suite;
use encx::{Crypto, EncryptionContext, Error, Refusals};
use encx_test_support::SSN;
use encx_testkit::{MemoryKeyStore, MemoryKms};

async fn process() -> (Crypto, EncryptionContext) {
    let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
        .build()
        .await
        .unwrap();
    (
        crypto,
        EncryptionContext::from_pairs([("tenantId", "t-42")]).unwrap(),
    )
}

#[tokio::test]
async fn each_entrance_says_where_a_value_does_not_authenticate() {
    let (crypto, context) = process().await;
    let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await.unwrap();
    let keyring = crypto.keyring(&context).await.unwrap();
    let elsewhere = || SSN.row_path("7", ["home"]);
    let mut buffers = [sealed.as_ref().to_vec(), sealed.as_ref().to_vec()];
    let [first, second] = &mut buffers;
    let errors = [
        crypto.decrypt(&context, &sealed, elsewhere()).await.unwrap_err(),
        crypto
            .decrypt_many([(&context, &sealed, elsewhere())])
            .await
            .remove(0)
            .unwrap_err(),
        keyring.decrypt(&sealed, elsewhere()).await.unwrap_err(),
        keyring.try_decrypt(&sealed, elsewhere()).unwrap_err(),
        keyring.decrypt_in_place(first, elsewhere()).await.unwrap_err(),
        keyring.try_decrypt_in_place(second, elsewhere()).unwrap_err(),
        keyring
            .decrypt_many([(&sealed, elsewhere())])
            .await
            .remove(0)
            .unwrap_err(),
    ];
    for error in &errors {
        let Error::Decrypt { at } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (at.table(), at.column(), at.row()),
            (Some("users"), Some("ssn/home"), Some("\"7\""))
        );
        assert_eq!(at.key_id(), Some(sealed.key_id()));
        let text = error.to_string();
        assert!(
            text.starts_with("the ciphertext of users.ssn/home, row \"7\" does not authenticate"),
            "{text}"
        );
        assert!(
            text.ends_with("was given as text; was the row encrypted with it as an integer?"),
            "{text}"
        );
    }
    let refused = crypto.stats().refused;
    assert_eq!(
        (refused.authentication, refused.unknown_key),
        (errors.len() as u64, 0)
    );
    // The other way round.
    let of_text = crypto
        .encrypt(&context, "123-45-6789", SSN.row("7"))
        .await
        .unwrap();
    let error = crypto.decrypt(&context, &of_text, SSN.row(7)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("was given as an integer; was the row encrypted with it as text?"),
        "{text}"
    );
    // Successful decryption is not counted, and the parts of a free AAD are not shown.
    crypto.decrypt(&context, &sealed, SSN.row(7)).await.unwrap();
    let free = encx::Aad::free().text("secret");
    let error = crypto.decrypt(&context, &sealed, free).await.unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(crypto.stats().refused.authentication, errors.len() as u64 + 2);
}

#[tokio::test]
async fn keys_that_are_unknown_or_withdrawn_name_the_row_too() {
    let (crypto, context) = process().await;
    let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await.unwrap();
    let other = EncryptionContext::from_pairs([("tenantId", "t-43")]).unwrap();
    crypto.encrypt(&other, "", SSN.row(1)).await.unwrap();
    let of_other = async |crypto: &Crypto| {
        let keyring = crypto.keyring(&other).await.unwrap();
        [
            crypto.decrypt(&other, &sealed, SSN.row(7)).await.unwrap_err(),
            crypto
                .decrypt_many([(&other, &sealed, SSN.row(7))])
                .await
                .remove(0)
                .unwrap_err(),
            keyring
                .decrypt_many([(&sealed, SSN.row(7))])
                .await
                .remove(0)
                .unwrap_err(),
            keyring
                .decrypt_in_place(&mut sealed.as_ref().to_vec(), SSN.row(7))
                .await
                .unwrap_err(),
        ]
    };
    for error in of_other(&crypto).await {
        assert!(
            matches!(&error, Error::UnknownKey { at, .. } if at.row() == Some("7")),
            "{error}"
        );
        assert!(error.to_string().contains("of users.ssn, row 7"), "{error}");
    }
    assert_eq!(crypto.stats().refused.unknown_key, 4);
    let manager = crypto.key_manager();
    manager
        .set_state(&context, sealed.key_id(), KeyState::Suspended)
        .await
        .unwrap();
    let error = crypto.decrypt(&context, &sealed, SSN.row(7)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Suspended { at, .. } if at.table() == Some("users")),
        "{error}"
    );
    assert_eq!(crypto.stats().refused.key_state, 1);
}

/// The other two kinds are counted separately, through either API.
#[tokio::test]
async fn refused_suites_and_key_rows_are_counted() {
    let (kms, store) = (MemoryKms::new(), MemoryKeyStore::new());
    let builder = || Crypto::builder(kms.clone(), store.clone());
    let context = EncryptionContext::from_pairs([("tenantId", "t-42")]).unwrap();
    let plain = builder()
        .accept_uncommitted()
        .encrypt_with(Suite::Xaes256Gcm)
        .build()
        .await
        .unwrap();
    let of_suite_2 = plain.encrypt(&context, "123-45-6789", SSN.row(7)).await.unwrap();
    let strict = builder().build().await.unwrap();
    let sealed = strict.encrypt(&context, "123-45-6789", SSN.row(7)).await.unwrap();
    let errors = [
        strict
            .decrypt(&context, &of_suite_2, SSN.row(7))
            .await
            .unwrap_err(),
        strict
            .decrypt_many([(&context, &of_suite_2, SSN.row(7))])
            .await
            .remove(0)
            .unwrap_err(),
    ];
    for error in &errors {
        assert!(
            matches!(error, Error::SuiteNotAccepted { at, .. } if at.row() == Some("7")),
            "{error}"
        );
    }
    let refused = strict.stats().refused;
    assert_eq!((refused.suite, total(refused)), (2, 2));

    // A row whose wrap holds another key, for a process that has to unwrap it.
    store.tamper(|rows| rows[0].key_check = KeyCheck::from_bytes([7; 32]));
    let reader = builder().build().await.unwrap();
    let errors = [
        reader.decrypt(&context, &sealed, SSN.row(7)).await.unwrap_err(),
        reader
            .decrypt_many([(&context, &sealed, SSN.row(7))])
            .await
            .remove(0)
            .unwrap_err(),
    ];
    for error in &errors {
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    }
    let refused = reader.stats().refused;
    assert_eq!((refused.key_row, total(refused)), (2, 2));
}

fn total(refused: Refusals) -> u64 {
    refused.authentication + refused.key_row + refused.key_state + refused.suite + refused.unknown_key
}

/// An error says what to do, and doing it works.
#[tokio::test]
async fn rotating_a_context_without_a_key_says_what_is_missing() {
    let (crypto, context) = process().await;
    let error = crypto.key_manager().rotate(&context).await.unwrap_err();
    assert!(matches!(error, Error::NoKeys), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("no key yet") && text.contains("`KeyManager::create`"),
        "{text}"
    );
    crypto.key_manager().create(&context).await.unwrap();
    crypto.key_manager().rotate(&context).await.unwrap();
}
