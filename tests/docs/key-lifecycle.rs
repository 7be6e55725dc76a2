//! The code of `docs/key-lifecycle.md`.
#![allow(clippy::print_stdout, reason = "as the document shows it")]

use encx::keys::{DataKeyId, Destruction, KeyManager, KeyState};
use encx::{Crypto, EncryptionContext};
use encx_testkit::{MemoryKeyStore, MemoryKms};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn destroy(manager: &KeyManager, context: EncryptionContext, old: DataKeyId) -> Result<()> {
    match manager.destroy(&context, old).await? {
        Destruction::Destroyed(record) => println!("{} is destroyed", record.id),
        later => println!("not yet: {later:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn the_code_is_shown_and_runs() {
    super::shown::assert_shown(
        include_str!("../../docs/key-lifecycle.md"),
        include_str!("key-lifecycle.rs"),
    );
    // A manager alone registers no process, so there is none to wait for.
    let builder = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
    let manager = builder.build_key_manager().unwrap();
    let context = EncryptionContext::from_pairs([("tenantId", "t-1")]).unwrap();
    let old = manager.create(&context).await.unwrap();
    manager.rotate(&context).await.unwrap();
    destroy(&manager, context.clone(), old.id).await.unwrap();
    let listed = manager.list(&context).await.unwrap();
    // The quarantine has begun, and nothing is lost yet.
    assert_eq!(listed[0].state, KeyState::Suspended);
}
