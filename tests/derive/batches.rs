//! The cost of a page of rows, which is all or nothing.

use encx::Error;
use encx::record::{RecordError, decrypt_all, decrypt_each, decrypt_each_in, encrypt_all};
use encx_testkit::Harness;

use crate::{EncryptedUser, User, user};

#[tokio::test]
async fn what_is_encrypted_comes_back() {
    let crypto = Harness::new().await.process().await;
    let mut full = user(1, "t-1");
    full.billing = Some(crate::address("Side Street"));
    let mut empty = user(2, "t-1");
    (
        empty.social,
        empty.r#type,
        empty.address.house,
        empty.address.place,
    ) = (None, None, None, None);
    for user in [full, empty] {
        let row: EncryptedUser = user.encrypt(&crypto).await.unwrap();
        assert_eq!(row.social.is_some(), user.social.is_some(), "`None` is NULL");
        assert_eq!((row.id, &row.tenant_id), (user.id, &user.tenant_id));
        assert_eq!(row.decrypt(&crypto).await.unwrap(), user);
    }
}

#[tokio::test]
async fn a_page_of_several_tenants_loads_keys_once() {
    let harness = Harness::new().await;
    let users: Vec<_> = (0..60).map(|n| user(n, &format!("t-{}", n % 20))).collect();
    let writer = harness.process().await;
    let rows = encrypt_all(&writer, &users).await.unwrap();
    // It gets hints of the keys that it created, and would read them during the count.
    writer.shutdown().await;

    let reader = harness.process().await;
    let (loads, calls) = (harness.store().loads(), harness.kms().calls().unwrap);
    let read: Vec<User> = decrypt_all(&reader, rows).await.unwrap();
    assert_eq!(read, users);
    // One for the page. The poller may read such new keys once more.
    assert!(harness.store().loads() - loads <= 2);
    assert_eq!(harness.kms().calls().unwrap - calls, 20, "one for each tenant");
    reader.shutdown().await;

    // Likewise for writing: all fields of all records are in one batch.
    let writer = harness.process().await;
    let (loads, calls) = (harness.store().loads(), harness.kms().calls().unwrap);
    encrypt_all(&writer, &users).await.unwrap();
    assert!(harness.store().loads() - loads <= 2);
    assert_eq!(harness.kms().calls().unwrap - calls, 20);
}

#[tokio::test]
async fn each_row_comes_back_with_its_own_result() {
    let crypto = Harness::new().await.process().await;
    let users = [user(1, "a"), user(2, "a"), user(3, "b"), user(4, "a")];
    let mut rows = encrypt_all(&crypto, &users).await.unwrap();
    rows[1].email = rows[0].email.clone();
    let context = encx::record::EncryptedRecord::<User>::context(&rows[0]).unwrap();
    let page: Vec<(EncryptedUser, Result<User, RecordError>)> =
        decrypt_each_in(&crypto, &context, rows.clone()).await;
    assert_eq!(page.len(), rows.len());
    for (at, ((row, result), given)) in page.iter().zip(&rows).enumerate() {
        assert_eq!((row.id, &row.email), (given.id, &given.email), "the raw row");
        match at {
            0 | 3 => assert_eq!(result.as_ref().unwrap(), &users[at]),
            1 => {
                let [failure] = result.as_ref().unwrap_err().failures() else {
                    panic!("{result:?}");
                };
                assert_eq!((failure.row, &*failure.field), (1, "email"));
                let Error::Decrypt { at } = &failure.error else {
                    panic!("{failure:?}");
                };
                assert_eq!(at.row(), Some("02020202-0202-0202-0202-020202020202"));
                assert!(at.column().is_some_and(|column| column.starts_with("e")), "{at}");
            }
            _ => {
                let failures = result.as_ref().unwrap_err().failures();
                assert_eq!(failures[0].row, 2);
                assert!(matches!(failures[0].error, Error::OtherContext), "{failures:?}");
            }
        }
    }
}

#[tokio::test]
async fn one_row_that_fails_fails_the_page_and_not_the_others() {
    let crypto = Harness::new().await.process().await;
    let mut rows = encrypt_all(&crypto, &[user(1, "a"), user(2, "a"), user(3, "a")])
        .await
        .unwrap();
    rows[1].email = rows[0].email.clone();
    let each = decrypt_each::<User, _>(&crypto, rows.clone()).await;
    assert_eq!(each[0].as_ref().unwrap(), &user(1, "a"));
    assert_eq!(each[2].as_ref().unwrap(), &user(3, "a"));
    let names = |error: &RecordError| -> Vec<_> {
        let failures = error.failures().iter();
        failures
            .map(|failure| (failure.row, failure.field.to_string()))
            .collect()
    };
    assert_eq!(names(each[1].as_ref().unwrap_err()), [(1, "email".to_owned())]);
    let all = decrypt_all::<User, _>(&crypto, rows).await.unwrap_err();
    assert_eq!(names(&all), [(1, "email".to_owned())]);
}

#[tokio::test]
async fn an_empty_page_is_no_error() {
    let crypto = Harness::new().await.process().await;
    assert!(encrypt_all::<User>(&crypto, []).await.unwrap().is_empty());
    let rows: [EncryptedUser; 0] = [];
    assert!(decrypt_all::<User, _>(&crypto, rows).await.unwrap().is_empty());
}

#[allow(dead_code, reason = "it has to compile, not to run")]
fn futures_are_send(crypto: &encx::Crypto, user: &User, row: EncryptedUser) {
    fn is_send(_: impl Send) {}
    is_send(user.encrypt(crypto));
    is_send(row.clone().decrypt(crypto));
    is_send(encrypt_all(crypto, std::slice::from_ref(user)));
    is_send(decrypt_all::<User, _>(crypto, vec![row.clone()]));
    let context = &encx::EncryptionContext::from_pairs([("tenantId", "t-1")]).unwrap();
    is_send(encx::record::decrypt_all_in::<User, _>(
        crypto,
        context,
        vec![row.clone()],
    ));
    is_send(row.clone().decrypt_in(crypto, context));
    is_send(decrypt_each::<User, _>(crypto, vec![row]));
}
