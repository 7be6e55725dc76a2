//! Every public future is `Send`.

use std::time::Duration;

use encx::keys::{DataKeyId, KeyManager, KeyState, Maintenance, MaintenanceTask};
use encx::kms::DataKey;
use encx::password::PasswordHash;
use encx::search::{BlindIndex, IndexField, IndexValue};
use encx::{Ciphertext, Crypto, CryptoBuilder, EncryptionContext, Keyring};
use encx_test_support::{SECOND, SSN};
use encx_testkit::Harness;

fn is_send(_: impl Send) {}

#[allow(dead_code, reason = "it has to compile, not to run")]
fn futures_are_send(
    (builder, crypto, keyring, manager): (CryptoBuilder, Crypto, Keyring, KeyManager),
    (context, sealed, id): (&EncryptionContext, &Ciphertext, DataKeyId),
    (index, hash, key): (&BlindIndex, &PasswordHash, DataKey),
    (maintenance, task): (Maintenance, MaintenanceTask),
) {
    const INDEX: IndexField = IndexField::new("users", "email", 64);

    is_send(builder.build());

    is_send(crypto.encrypt(context, "text", SSN.row(1)));
    is_send(crypto.encrypt(context, vec![1_u8], SSN.row(1)));
    is_send(crypto.decrypt(context, sealed, SSN.row(1)));
    let place = SSN.row(1);
    is_send(crypto.decrypt(context, sealed, &place));
    is_send(crypto.encrypt_many([(context, "text", SSN.row(1))]));
    is_send(crypto.decrypt_many([(context, sealed, SSN.row(1))]));
    is_send(crypto.keyring(context));
    is_send(crypto.needs_reencryption(context, sealed));
    is_send(crypto.warm_up([context]));
    is_send(crypto.shutdown());

    let items = || [(context, &INDEX, &"text" as &(dyn IndexValue + Sync))];
    is_send(crypto.blind_index(context, &INDEX, "text"));
    is_send(crypto.blind_index_many(items()));
    is_send(crypto.blind_index_under(context, &INDEX, "text", id));
    is_send(crypto.index_terms(context, &INDEX, "text"));
    is_send(crypto.index_terms_many(items()));
    is_send(crypto.needs_reindex(context, index));

    is_send(crypto.hash_password(context, "text", SSN.row(1)));
    is_send(crypto.verify_password(context, hash, "text", SSN.row(1)));
    is_send(crypto.verify_nobody(context, "text"));

    is_send(keyring.encrypt("text", SSN.row(1)));
    is_send(keyring.encrypt_into("text", SSN.row(1), &mut Vec::new()));
    is_send(keyring.decrypt(sealed, SSN.row(1)));
    is_send(keyring.decrypt_in_place(&mut Vec::new(), SSN.row(1)));
    is_send(keyring.needs_reencryption(sealed));

    is_send(manager.create(context));
    is_send(manager.rotate(context));
    is_send(manager.list(context));
    is_send(manager.set_state(context, id, KeyState::Suspended));
    is_send(manager.destroy(context, id));
    is_send(manager.revive(context));
    is_send(manager.rewrap(context));
    is_send(manager.import(context, key));
    is_send(manager.prepare(context));
    is_send(manager.rewrap_all().run());
    is_send(manager.rewrap_all().start().report());
    is_send(manager.rewrap_all().start().next_event());
    is_send(manager.prepare(context));
    is_send(manager.destroy_with_data(context, id, "a test"));
    is_send(manager.await_processes(Duration::ZERO));
    is_send(manager.shred(context, Duration::ZERO));

    is_send(maintenance.run_once());
    is_send(task.stop());
}

#[allow(dead_code, reason = "it has to compile, not to run")]
fn futures_of_the_harness_are_send(harness: &Harness) {
    is_send(Harness::new());
    is_send(Harness::with(|settings| settings));
    is_send(harness.process());
    is_send(harness.clock().advance(SECOND));
}

#[test]
fn handles_are_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Crypto>();
    is_shared::<Keyring>();
    is_shared::<KeyManager>();
    is_shared::<Harness>();
    is_shared::<encx::Error>();
}
