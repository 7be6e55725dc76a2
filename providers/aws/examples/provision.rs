//! Makes all that a service needs from nothing: a KEK with a policy, an alias, automatic rotation, replicas, and prints
//! the identity policy for the service's role where it needs one. Run again, it changes nothing, and says so.
//!
//! ```sh
//! cargo run -p encx-aws --example provision -- \
//!   --alias alias/shop-pii --account 111122223333 --user arn:aws:iam::111122223333:role/shop --replica eu-west-1
//! ```
//!
//! Needs credentials with `IdentityPolicy::administrator`, and `AWS_REGION`. Name all users, every time: the policy is made of
//! the arguments alone. If that would change the policy of a key that exists, it says who would lose and gain what, and
//! changes it only with `--replace-policy`. Without `--user` the account's identity policies decide who uses the key.
//!
//! With `--print-policy NAME` it prints one policy and asks nobody: `administrator` and `key` need `--account`, `service` and
//! `lifecycle` need `--kek` with the key's ARN, once for each region.
#![allow(clippy::print_stdout, reason = "a program that speaks to whoever runs it")]

use std::error::Error;

use encx::kms::KekId;
use encx_aws::AwsKms;
use encx_aws::admin::{Change, KmsAdmin, NewKek, RotationPeriod};
use encx_aws::policy::{IdentityPolicy, KeyPolicy};

#[derive(Default)]
struct Arguments {
    alias: Option<String>,
    account: Option<String>,
    users: Vec<String>,
    administrators: Vec<String>,
    replicas: Vec<String>,
    keks: Vec<KekId>,
    replace_policy: bool,
    print_policy: Option<String>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let (mut found, mut given) = (Arguments::default(), std::env::args().skip(1));
    while let Some(name) = given.next() {
        if name == "--replace-policy" {
            found.replace_policy = true;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match &*name {
            "--alias" => found.alias = Some(value),
            "--account" => found.account = Some(value),
            "--user" => found.users.push(value),
            "--administrator" => found.administrators.push(value),
            "--kek" => found.keks.push(KekId::new(value)?),
            "--print-policy" => found.print_policy = Some(value),
            "--replica" => found.replicas.push(value),
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok(found)
}

impl Arguments {
    fn account(&self) -> Result<&str, &'static str> {
        self.account
            .as_deref()
            .ok_or("--account, twelve digits, is needed")
    }

    fn key_policy(&self) -> Result<KeyPolicy, Box<dyn Error>> {
        let mut policy = KeyPolicy::new(self.account()?)?;
        for principal in &self.users {
            policy = policy.user(principal);
        }
        for principal in &self.administrators {
            policy = policy.administrator(principal);
        }
        if self.users.is_empty() {
            policy = policy.let_identity_policies_decide();
        }
        Ok(policy)
    }

    /// Tells whether some user is of another account: it needs an identity policy besides the key's.
    fn has_foreign_users(&self) -> Result<bool, &'static str> {
        let account = format!("::{}:", self.account()?);
        Ok(self.users.iter().any(|user| !user.contains(&account)))
    }

    fn policy_named(&self, name: &str) -> Result<String, Box<dyn Error>> {
        Ok(match name {
            "administrator" => IdentityPolicy::administrator(self.account()?)?.to_string(),
            "key" => self.key_policy()?.to_string(),
            "lifecycle" => IdentityPolicy::lifecycle(&self.keks)?.to_string(),
            "service" => IdentityPolicy::service(&self.keks)?.to_string(),
            _ => {
                return Err(
                    format!("there is no policy `{name}`: administrator, key, lifecycle, service").into(),
                );
            }
        })
    }
}

/// Gives a key that exists its policy. Whoever would lose something by it is not forgotten in silence.
async fn set_policy(
    admin: &KmsAdmin,
    kek: &KekId,
    policy: &KeyPolicy,
    replace: bool,
) -> Result<Change, Box<dyn Error>> {
    let difference = admin.compare_policy(kek, policy).await?;
    for line in &difference.lost {
        println!("- {line}");
    }
    for line in &difference.gained {
        println!("+ {line}");
    }
    if !difference.is_empty() && !replace {
        return Err(format!(
            "the policy of {kek} would change as shown: name all users, every time, or add --replace-policy"
        )
        .into());
    }
    Ok(admin.set_policy(kek, policy).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    if let Some(name) = &arguments.print_policy {
        println!("{}", arguments.policy_named(name)?);
        return Ok(());
    }
    let alias = arguments.alias.clone().ok_or("--alias alias/… is needed")?;
    let policy = arguments.key_policy()?;
    let mut builder = AwsKms::builder();
    // For tests, whose regions are all at one address.
    if let Ok(url) = std::env::var("PROVISION_REPLICA_ENDPOINT") {
        for region in &arguments.replicas {
            builder = builder.endpoint_url_for(region, &url);
        }
    }
    let admin = KmsAdmin::new(&builder.build().await?);
    let mut changes = 0;
    let mut say = |what: &str, change: Change| {
        changes += i32::from(change != Change::Unchanged);
        println!("{what}: {change}");
    };
    let kek = match admin.find_kek(&alias).await? {
        Some(kek) => {
            say(&format!("key {kek}"), Change::Unchanged);
            kek
        }
        None => {
            let mut new = NewKek::new()
                .description(format!("KEK of encx, {alias}"))
                .tag("encx", "kek")
                .policy(policy.clone());
            if !arguments.replicas.is_empty() {
                new = new.multi_region();
            }
            let kek = admin.create_kek(&new).await?;
            say(&format!("key {kek}"), Change::Created);
            // At once: until it has a name, nobody finds the key again.
            say(&format!("alias {alias}"), admin.set_alias(&alias, &kek).await?);
            kek
        }
    };
    let replace = arguments.replace_policy;
    say(
        "policy of the key",
        set_policy(&admin, &kek, &policy, replace).await?,
    );
    let period = RotationPeriod::default();
    say(
        "automatic rotation",
        admin.rotate_automatically(&kek, period).await?,
    );
    let mut keks = vec![kek.clone()];
    for region in &arguments.replicas {
        let (replica, change) = admin.replicate_kek(&kek, region, Some(&policy)).await?;
        say(&format!("replica {replica}"), change);
        say(
            &format!("policy in {region}"),
            set_policy(&admin, &replica, &policy, replace).await?,
        );
        say(
            &format!("alias in {region}"),
            admin.set_alias(&alias, &replica).await?,
        );
        keks.push(replica);
    }
    if changes == 0 {
        println!("nothing was changed");
    }

    println!("\nFor the service: AWS_KMS_KEY_ID={kek}");
    if arguments.users.is_empty() || arguments.has_foreign_users()? {
        println!(
            "For its role, as an identity policy:\n{}",
            IdentityPolicy::service(&keks)?
        );
    } else {
        println!("The policy of the key names its users, who need no other.");
    }
    Ok(())
}
