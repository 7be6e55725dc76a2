//! Controls of standards, and the evidence for each. Never states that one is met: encx shows only a part.

use super::data::{Control, Facts, Level, Standing};
use super::evidence::{self as shows, Line};

const SOC2: &str = "SOC 2";
const HIPAA: &str = "HIPAA";
const PCI: &str = "PCI DSS v4.0.1";
const NIST: &str = "NIST SP 800-57 part 1 rev. 5";

/// Compares the facts with every control.
pub(super) fn of(facts: &Facts) -> Vec<Control> {
    let mut controls = general(facts);
    controls.extend(pci_3_6(facts));
    controls.extend(pci_3_7(facts));
    controls.extend(nist(facts));
    controls
}

/// A control, the most that encx can show of it, and the evidence.
struct Asked {
    control: &'static str,
    asks: &'static str,
    at_best: Standing,
    evidence: Vec<Vec<Line>>,
    elsewhere: &'static str,
}

impl Asked {
    fn by(self, standard: &'static str) -> Control {
        let lines: Vec<_> = self.evidence.into_iter().flatten().collect();
        let is_known = |line: &Line| line.level != Level::NotKnown;
        let standing = if lines.iter().any(|line| line.level == Level::Finding) {
            Standing::Finding
        } else if !lines.iter().any(|line| line.is_measured && is_known(line)) {
            Standing::NotShown
        } else if !lines.iter().all(is_known) {
            self.at_best.min(Standing::Partly)
        } else {
            self.at_best
        };
        Control {
            standard,
            control: self.control,
            asks: self.asks,
            standing,
            evidence: lines.into_iter().map(|line| line.says).collect(),
            elsewhere: self.elsewhere,
        }
    }
}

fn one(line: Line) -> Vec<Line> {
    vec![line]
}

fn general(facts: &Facts) -> Vec<Control> {
    let soc2 = [
        Asked {
            control: "CC6.1",
            asks: "Logical access to protected information is restricted. Where encryption does that, keys are protected when they are made, \
                   stored, used and destroyed.",
            at_best: Standing::Partly,
            evidence: vec![
                one(shows::columns(facts)),
                one(shows::cipher(facts)),
                shows::keks(facts),
                one(shows::kek_rotation(facts)),
                shows::wraps(facts),
            ],
            elsewhere: "Who may use each KEK: the policies of the KMS. Who may log in to the database and the service: their roles. \
                        Data that is in no declared column.",
        },
        Asked {
            control: "CC6.7",
            asks: "Information is protected while it is transmitted, moved or taken away.",
            at_best: Standing::Partly,
            evidence: vec![
                one(shows::columns(facts)),
                one(Line::built_in(
                    "Values of these columns leave the service encrypted: connections to the database, replicas, exports and backups hold \
                     ciphertexts",
                )),
                shows::verified(facts),
            ],
            elsewhere: "TLS of every connection, removable media, mobile devices, and who may export data: the network's configuration and \
                        policies.",
        },
        Asked {
            control: "CC7.1",
            asks: "Changes of configuration that open a weakness, and weaknesses that become known, are detected.",
            at_best: Standing::Partly,
            evidence: vec![
                shows::audit(facts),
                shows::states(facts),
                one(shows::due(facts)),
                shows::keks(facts),
                shows::refusals(facts),
            ],
            elsewhere: "Scans for vulnerabilities, monitoring of hosts and configuration, and that alerts reach people: those tools and \
                        their records.",
        },
    ];
    let hipaa = Asked {
        control: "45 CFR 164.312(a)(2)(iv)",
        asks: "A mechanism encrypts and decrypts electronic protected health information (an addressable specification).",
        at_best: Standing::Partly,
        evidence: vec![
            one(shows::columns(facts)),
            one(shows::cipher(facts)),
            shows::verified(facts),
            shows::census(facts),
        ],
        elsewhere: "That every column with such information is declared: the inventory of data. Files, logs and other systems. The written \
                    decision, if another measure is taken.",
    };
    let soc2 = soc2.into_iter().map(|asked| asked.by(SOC2));
    soc2.chain([hipaa.by(HIPAA)]).collect()
}

fn pci_3_6(facts: &Facts) -> Vec<Control> {
    let asked = [
        Asked {
            control: "3.6.1",
            asks: "Keys that protect stored account data are protected against disclosure and misuse: few custodians, few places and \
                   forms, key-encrypting keys at least as strong as the keys that they protect and stored apart from them.",
            at_best: Standing::Partly,
            evidence: vec![
                shows::wraps(facts),
                shows::places(facts),
                one(shows::cipher(facts)),
            ],
            elsewhere: "The written procedures, who the custodians are, and the strength of each KEK: the KMS's description of its keys.",
        },
        Asked {
            control: "3.6.1.1",
            asks: "Service providers describe their cryptographic architecture: algorithms, keys with their strength and expiry, what each \
                   is used for, an inventory of HSMs and KMSs; and use no key in both production and test.",
            at_best: Standing::Partly,
            evidence: vec![
                one(shows::cipher(facts)),
                shows::places(facts),
                shows::states(facts),
                shows::rotation(facts),
            ],
            elsewhere: "The description itself, of which this report can be a part, and that test systems have KEKs of their own.",
        },
        Asked {
            control: "3.6.1.2",
            asks: "Secret and private keys are stored encrypted under a key-encrypting key that is as strong and stored apart, or in a \
                   secure cryptographic device, or as full-length components.",
            at_best: Standing::Shown,
            evidence: vec![shows::wraps(facts), shows::places(facts)],
            elsewhere: "How the KMS stores KEKs: its certificates, such as FIPS 140.",
        },
        Asked {
            control: "3.6.1.3",
            asks: "As few custodians as needed have access to key components in clear text.",
            at_best: Standing::NotShown,
            evidence: vec![],
            elsewhere: "Who may unwrap under a KEK: the KMS's policies and its log. encx writes no data key in clear text anywhere.",
        },
        Asked {
            control: "3.6.1.4",
            asks: "Keys are stored in as few places as possible.",
            at_best: Standing::Partly,
            evidence: vec![
                shows::places(facts),
                one(shows::processes(facts)),
                one(shows::cache(facts)),
            ],
            elsewhere: "Replicas and backups of the key store, which hold wrapped keys: the database's operators.",
        },
    ];
    asked.into_iter().map(|asked| asked.by(PCI)).collect()
}

fn pci_3_7(facts: &Facts) -> Vec<Control> {
    let custodians = match shows::has_local_keks(facts) {
        true => {
            "encx has no operation in which a person handles a data key in clear text. The passphrase or key of a file of local KEKs \
                 is such an operation: its procedure."
        }
        false => {
            "encx has no operation in which a person handles a key in clear text. If the KMS has one, such as importing material: its \
                  procedure."
        }
    };
    let asked = [
        Asked {
            control: "3.7.1",
            asks: "Procedures cover the generation of strong keys.",
            at_best: Standing::Partly,
            evidence: vec![
                one(Line::built_in(
                    "Data keys have 256 bits and are drawn by the KMS, or from the random numbers of the operating system",
                )),
                one(shows::cipher(facts)),
            ],
            elsewhere: "The written procedure, and how KEKs were made: the KMS's records and certificates.",
        },
        Asked {
            control: "3.7.2",
            asks: "Procedures cover the secure distribution of keys.",
            at_best: Standing::Partly,
            evidence: vec![
                one(Line::built_in(
                    "Data keys are handed to processes wrapped; a process unwraps them by a call of the KMS that the KMS authorises",
                )),
                one(shows::processes(facts)),
            ],
            elsewhere: "The written procedure, and TLS and credentials between processes and the KMS.",
        },
        Asked {
            control: "3.7.3",
            asks: "Procedures cover the secure storage of keys.",
            at_best: Standing::Partly,
            evidence: vec![shows::wraps(facts), shows::places(facts)],
            elsewhere: "The written procedure, and the rights on the key store's tables.",
        },
        Asked {
            control: "3.7.4",
            asks: "Keys are changed at the end of a cryptoperiod that is defined for each type of key.",
            at_best: Standing::Shown,
            evidence: vec![
                shows::rotation(facts),
                one(shows::rotations(facts)),
                one(shows::kek_rotation(facts)),
            ],
            elsewhere: "Why the periods are as they are: the decision of the owner of the keys.",
        },
        Asked {
            control: "3.7.5",
            asks: "Keys are retired, replaced or destroyed at the end of their cryptoperiod, when they are weakened, and when they may be \
                   compromised. Retired keys encrypt nothing.",
            at_best: Standing::Partly,
            evidence: vec![
                shows::states(facts),
                one(Line::built_in(
                    "Only active versions encrypt; deactivated ones only decrypt",
                )),
                shows::census(facts),
                one(shows::destroyed(facts)),
                shows::receipts(facts),
            ],
            elsewhere: "That keys are reported as weakened or compromised, as when a person leaves: the procedure for incidents.",
        },
        Asked {
            control: "3.7.6",
            asks: "Where people handle keys in clear text, knowledge is split and two of them are needed.",
            at_best: Standing::NotShown,
            evidence: vec![],
            elsewhere: custodians,
        },
        Asked {
            control: "3.7.7",
            asks: "No key is substituted without authorisation.",
            at_best: Standing::Partly,
            evidence: vec![
                one(Line::built_in(
                    "The KMS binds each data key to its encryption context, id and usage, and a check value recognises it: a key that is put \
                     in its place is refused",
                )),
                shows::wraps(facts),
                shows::audit(facts),
            ],
            elsewhere: "Who may write to the key store and wrap under a KEK: the database's roles and the KMS's policies. Who writes the \
                        database can edit the audit log.",
        },
        Asked {
            control: "3.7.8",
            asks: "Custodians of keys acknowledge their responsibilities in writing.",
            at_best: Standing::NotShown,
            evidence: vec![],
            elsewhere: "The signed statements.",
        },
        Asked {
            control: "3.7.9",
            asks: "Service providers who share keys with customers tell them how to transmit, store and change these keys.",
            at_best: Standing::NotShown,
            evidence: vec![],
            elsewhere: "The guidance for customers. encx shares no key with them.",
        },
    ];
    asked.into_iter().map(|asked| asked.by(PCI)).collect()
}

fn nist(facts: &Facts) -> Vec<Control> {
    let asked = [
        Asked {
            control: "Section 7, key states",
            asks: "A key is in one of the states pre-activation, active, suspended, deactivated, compromised and destroyed; what it may do \
                   follows from its state, and each transition is recorded.",
            at_best: Standing::Shown,
            evidence: vec![
                shows::states(facts),
                shows::audit(facts),
                one(shows::transitions(facts)),
                one(shows::destroyed(facts)),
            ],
            elsewhere: "States of KEKs beyond enabled, disabled and planned deletion: the KMS. Copies of wraps in backups of the key store.",
        },
        Asked {
            control: "Section 5.3, cryptoperiods",
            asks: "Each key has a period in which it encrypts, and one in which it may still decrypt. For symmetric keys that encrypt data or \
                   wrap keys, at most 2 years and at most 3 years beyond are suggested.",
            at_best: Standing::Shown,
            evidence: vec![
                shows::rotation(facts),
                shows::cryptoperiods(facts),
                one(shows::kek_rotation(facts)),
            ],
            elsewhere: "Periods that fit the amount of data and the risk: the owner's decision.",
        },
    ];
    asked.into_iter().map(|asked| asked.by(NIST)).collect()
}
