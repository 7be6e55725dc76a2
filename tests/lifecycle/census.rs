//! No version is destroyed that rows still use, unless that is meant.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use encx::{ColumnCount, Crypto, DataKeyId, Error, KeyCensus, KeyState, StoreError};

use super::support::{World, context, open, seal};

/// Answers as it is told, and notes what it was asked.
#[derive(Clone, Debug, Default)]
struct Census(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    rows: Vec<ColumnCount>,
    down: bool,
    asked: Vec<DataKeyId>,
}

impl Census {
    fn set(&self, rows: &[(&str, &str, u64)]) {
        let rows = rows
            .iter()
            .map(|(table, column, rows)| ColumnCount::new(*table, *column, *rows));
        self.0.lock().unwrap().rows = rows.collect();
    }

    fn asked(&self) -> Vec<DataKeyId> {
        self.0.lock().unwrap().asked.clone()
    }
}

#[async_trait]
impl KeyCensus for Census {
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError> {
        let mut answers = self.0.lock().unwrap();
        answers.asked.push(id);
        if answers.down {
            return Err(StoreError::unavailable(std::io::Error::other("down")));
        }
        Ok(answers.rows.clone())
    }
}

async fn rotated(world: &World, census: &Census) -> (Crypto, encx::Ciphertext) {
    let process = world.built(world.builder().census(census.clone())).await;
    let sealed = seal(&process, &context("a")).await;
    process.key_manager().rotate(&context("a")).await.unwrap();
    (process, sealed)
}

#[tokio::test]
async fn destroying_is_refused_while_rows_use_the_version() {
    let (world, census) = (World::new(), Census::default());
    let (process, sealed) = rotated(&world, &census).await;
    let (manager, context, id) = (process.key_manager(), context("a"), sealed.key_id());
    census.set(&[("users", "ssn", 12), ("users", "iban", 0), ("orders", "card", 1)]);
    let refused = manager.destroy(&context, id).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("12 in users.ssn, 1 in orders.card"), "{text}");
    assert!(!refused.is_retryable());
    let Error::StillInUse { id: of, columns } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((of, columns.len()), (id, 2));
    open(&process, &context, &sealed).await.unwrap();

    // A census that cannot count does not count nothing.
    census.set(&[]);
    census.0.lock().unwrap().down = true;
    let refused = manager.destroy(&context, id).await.unwrap_err();
    assert!(
        matches!(refused, Error::Store(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    open(&process, &context, &sealed).await.unwrap();

    census.0.lock().unwrap().down = false;
    census.set(&[("users", "ssn", 0)]);
    let destroyed = manager.destroy(&context, id).await.unwrap();
    assert_eq!(destroyed.state, KeyState::Destroyed);
    assert_eq!(census.asked(), [id; 3]);
}

#[tokio::test]
async fn destroying_with_the_data_asks_nobody() {
    let (world, census) = (World::new(), Census::default());
    let (process, sealed) = rotated(&world, &census).await;
    census.set(&[("users", "ssn", 12)]);
    let manager = process.key_manager();
    manager
        .destroy_with_data(&context("a"), sealed.key_id())
        .await
        .unwrap();
    let refused = open(&process, &context("a"), &sealed).await;
    assert!(matches!(refused, Err(Error::Destroyed { .. })), "{refused:?}");
    assert_eq!(census.asked(), []);
}

#[tokio::test]
async fn a_manager_alone_asks_the_census_that_it_is_given() {
    let (world, census) = (World::new(), Census::default());
    let sealed = seal(&world.process().await, &context("a")).await;
    let manager = world.elsewhere().with_census(Arc::new(census.clone()));
    manager.rotate(&context("a")).await.unwrap();
    census.set(&[("users", "ssn", 1)]);
    let refused = manager.destroy(&context("a"), sealed.key_id()).await;
    assert!(matches!(refused, Err(Error::StillInUse { .. })), "{refused:?}");
    // The active version is refused for what it is, whatever rows there are.
    census.set(&[]);
    let active = manager.list(&context("a")).await.unwrap()[1].id;
    let refused = manager.destroy(&context("a"), active).await;
    assert!(
        matches!(refused, Err(Error::Store(StoreError::IllegalTransition { .. }))),
        "{refused:?}"
    );
}
