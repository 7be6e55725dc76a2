//! For any sequence of key operations, two processes agree with a simple model.

use std::time::Duration;

use encx::keys::{DataKeyId, KeyManager, KeyState, KeyUsage};
use encx::store::StoreError;
use encx::{Ciphertext, Crypto, EncryptionContext, Error};
use encx_test_support::{FaultHarness, SSN, context, settle};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{other_process, tool};

use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};

#[derive(Clone, Debug)]
enum Step {
    Create,
    Rotate,
    Publish,
    SetState(Index, KeyState),
    Resume(Index),
    Destroy(Index),
    Shred,
    Revive,
    Encrypt(usize),
    Decrypt(usize, Index),
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<Index>;
    let state = prop::sample::select(vec![
        Active,
        Suspended,
        Suspended,
        Compromised,
        Deactivated,
        PreActive,
    ]);
    prop_oneof![
        1 => Just(Step::Create),
        4 => Just(Step::Rotate),
        3 => Just(Step::Publish),
        8 => (any_index(), state).prop_map(|(at, state)| Step::SetState(at, state)),
        3 => any_index().prop_map(Step::Resume),
        3 => any_index().prop_map(Step::Destroy),
        1 => Just(Step::Shred),
        2 => Just(Step::Revive),
        8 => (0..2_usize).prop_map(Step::Encrypt),
        8 => ((0..2_usize), any_index()).prop_map(|(process, at)| Step::Decrypt(process, at)),
    ]
}

/// The result of a step, as the model predicts it.
type Outcome = Result<(), &'static str>;

#[derive(Clone, Debug, PartialEq)]
struct Version {
    state: KeyState,
    suspended_from: Option<KeyState>,
    was_active: bool,
}

/// The versions of one context, oldest first.
#[derive(Debug, Default)]
struct Model(Vec<Version>);

impl Model {
    fn is_shredded(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|version| version.state == Destroyed)
    }

    fn active(&self) -> Option<usize> {
        self.0.iter().position(|version| version.state == Active)
    }

    fn add(&mut self, state: KeyState) {
        self.0.push(Version {
            state: PreActive,
            suspended_from: None,
            was_active: false,
        });
        if state == Active {
            self.activate(self.0.len() - 1);
        }
    }

    fn activate(&mut self, at: usize) {
        for version in &mut self.0 {
            if version.state == Active {
                version.state = Deactivated;
            }
            if version.suspended_from == Some(Active) {
                version.suspended_from = Some(Deactivated);
            }
        }
        self.0[at] = Version {
            state: Active,
            suspended_from: None,
            was_active: true,
        };
    }

    fn waiting(&self) -> Option<usize> {
        let newest = self.0.iter().rposition(|version| version.was_active);
        let waiting = self.0.iter().rposition(|version| version.state == PreActive);
        waiting.filter(|waiting| newest.is_none_or(|newest| *waiting > newest))
    }

    fn must_live(&self) -> Outcome {
        match self.0.is_empty() {
            true => Err("no keys"),
            false if self.is_shredded() => Err("shredded"),
            false => Ok(()),
        }
    }

    fn create(&mut self) -> Outcome {
        match self.must_live() {
            Err("no keys") => {
                self.add(Active);
                Ok(())
            }
            Ok(()) => Err("exists"),
            shredded => shredded,
        }
    }

    fn rotate(&mut self) -> Outcome {
        self.must_live()?;
        match self.waiting() {
            Some(waiting) => self.activate(waiting),
            None => self.add(Active),
        }
        Ok(())
    }

    fn publish(&mut self) -> Outcome {
        self.must_live()?;
        if self.waiting().is_none() {
            self.add(PreActive);
        }
        Ok(())
    }

    fn set_state(&mut self, at: usize, to: KeyState) -> Outcome {
        let Version {
            state,
            suspended_from,
            ..
        } = self.0[at].clone();
        let legal = match (state, to) {
            (Suspended, Compromised | Destroyed) => true,
            (Suspended, to) => suspended_from == Some(to),
            (PreActive, to) => matches!(to, Active | Suspended | Destroyed),
            (Active, to) => matches!(to, Suspended | Compromised),
            (Deactivated, to) => matches!(to, Suspended | Compromised | Destroyed),
            (Compromised, to) => to == Destroyed,
            _ => false,
        };
        if !legal {
            return Err("illegal");
        }
        if to == Active {
            if self.0[at + 1..].iter().any(|version| version.was_active) {
                return Err("superseded");
            }
            self.activate(at);
        } else {
            self.0[at].state = to;
            self.0[at].suspended_from = (to == Suspended).then_some(state);
        }
        Ok(())
    }

    fn shred(&mut self) -> Outcome {
        for version in &mut self.0 {
            version.state = Destroyed;
            version.suspended_from = None;
        }
        self.0.first().map(|_| ()).ok_or("no keys")
    }

    fn revive(&mut self) -> Outcome {
        match self.must_live() {
            Err("shredded") => {
                self.add(Active);
                Ok(())
            }
            Ok(()) => Err("exists"),
            empty => empty,
        }
    }

    /// Returns the version that encrypts.
    fn encrypt(&mut self) -> Result<usize, &'static str> {
        if self.0.is_empty() {
            self.add(Active);
        }
        if self.is_shredded() {
            return Err("shredded");
        }
        self.active().ok_or("none active")
    }

    fn decrypt(&self, at: usize) -> Outcome {
        match self.0[at].state {
            Active | Deactivated | PreActive => Ok(()),
            _ if self.is_shredded() => Err("shredded"),
            Suspended => Err("suspended"),
            Compromised => Err("compromised"),
            _ => Err("destroyed"),
        }
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::AlreadyExists => "exists",
        Error::Compromised { .. } => "compromised",
        Error::Destroyed { .. } => "destroyed",
        Error::NoActiveKey => "none active",
        Error::NoKeys => "no keys",
        Error::Shredded => "shredded",
        Error::Store(StoreError::IllegalTransition { .. }) => "illegal",
        Error::Store(StoreError::Superseded { .. }) => "superseded",
        Error::Suspended { .. } => "suspended",
        other => panic!("unexpected {other:?}"),
    }
}

fn outcome<T>(done: &Result<T, Error>) -> Outcome {
    done.as_ref().map(|_| ()).map_err(kind)
}

/// The implementation, compared with the model.
struct Real {
    harness: FaultHarness,
    processes: [Crypto; 2],
    manager: KeyManager,
    context: EncryptionContext,
    ids: Vec<DataKeyId>,
    sealed: Vec<(Ciphertext, usize)>,
}

impl Real {
    async fn new() -> Self {
        let harness = FaultHarness::with_hints().with_registry();
        Self {
            processes: [harness.process().await, other_process(&harness).await],
            manager: tool(&harness),
            context: context("a"),
            harness,
            ids: Vec::new(),
            sealed: Vec::new(),
        }
    }

    async fn take(&mut self, model: &mut Model, step: Step) {
        let context = &self.context;
        let version = |at: Index| (!self.ids.is_empty()).then(|| at.index(self.ids.len()));
        let (found, expected) = match step {
            Step::Create => (outcome(&self.manager.create(context).await), model.create()),
            Step::Rotate => (outcome(&self.manager.rotate(context).await), model.rotate()),
            Step::Publish => (outcome(&self.manager.prepare(context).await), model.publish()),
            Step::Shred => {
                let done = self.manager.shred(context, Duration::ZERO).await;
                (outcome(&done), model.shred())
            }
            Step::Revive => (outcome(&self.manager.revive(context).await), model.revive()),
            Step::SetState(at, to) => {
                let Some(at) = version(at) else { return };
                let done = self.manager.set_state(context, self.ids[at], to).await;
                (outcome(&done), model.set_state(at, to))
            }
            Step::Resume(at) => {
                let Some(at) = version(at) else { return };
                let Some(to) = model.0[at].suspended_from else {
                    return;
                };
                let done = self.manager.set_state(context, self.ids[at], to).await;
                (outcome(&done), model.set_state(at, to))
            }
            Step::Destroy(at) => {
                let Some(at) = version(at) else { return };
                let done = self
                    .manager
                    .destroy_with_data(context, self.ids[at], "a test")
                    .await;
                (outcome(&done), model.set_state(at, Destroyed))
            }
            Step::Encrypt(process) => {
                let done = self.processes[process].encrypt(context, "x", SSN.row(1)).await;
                let expected = model.encrypt();
                let found = outcome(&done);
                self.follow(model);
                if let (Ok(sealed), Ok(at)) = (done, expected) {
                    assert_eq!(sealed.key_id(), self.ids[at]);
                    self.sealed.push((sealed, at));
                }
                (found, expected.map(|_| ()))
            }
            Step::Decrypt(process, which) => {
                let Some((sealed, at)) = (!self.sealed.is_empty()).then(|| which.get(&self.sealed)) else {
                    return;
                };
                let done = self.processes[process].decrypt(context, sealed, SSN.row(1)).await;
                (outcome(&done), model.decrypt(*at))
            }
        };
        assert_eq!(found, expected);
        self.follow(model);
        // Both processes follow the hints.
        settle().await;
    }

    /// Compares the rows with the model.
    fn follow(&mut self, model: &Model) {
        let mut records = self.harness.rows.records();
        // A shredding leaves tombstones of the other usages.
        records.retain(|record| record.usage == KeyUsage::Data);
        self.ids = records.iter().map(|record| record.id).collect();
        let versions: Vec<_> = records
            .iter()
            .map(|record| Version {
                state: record.state,
                suspended_from: record.suspended_from,
                was_active: record.activated_at.is_some(),
            })
            .collect();
        assert_eq!(versions, model.0);
        assert!(records.iter().filter(|record| record.state == Active).count() <= 1);
        for record in records {
            assert_eq!(record.wraps.is_empty(), record.state == Destroyed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_processes_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut real, mut model) = (Real::new().await, Model::default());
            for step in steps {
                real.take(&mut model, step).await;
            }
            // At the end, each process reads exactly what the model allows.
            for process in [0, 1] {
                for at in 0..real.sealed.len() {
                    let (sealed, version) = &real.sealed[at];
                    let done = real.processes[process].decrypt(&real.context, sealed, SSN.row(1)).await;
                    assert_eq!(outcome(&done), model.decrypt(*version));
                }
            }
        });
    }
}
