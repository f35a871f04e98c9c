//! The state of a task: one derivation for lists, pages and counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labels::labels;

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TaskStateView {
    /// All registrations are as declared.
    Registered,
    /// Its registrations are out of load balancing.
    Drained,
    /// The tags of its role do not allow it.
    Rejected,
    /// Unchanged until a conflict is resolved, or a guard, a pause or a policy permits the change.
    Held,
    /// A fact or a write is outstanding.
    Pending,
    /// No binding or workload selects it.
    Ignored,
    /// It registers itself (Consul, or a Dataplane that its sidecar owns).
    #[serde(rename = "self")]
    SelfRegistered,
    /// ECS has stopped it or does not show it.
    Stopped,
}

labels!(TaskStateView {
    Registered => "registered",
    Drained => "drained",
    Rejected => "rejected",
    Held => "held",
    Pending => "pending",
    Ignored => "ignored",
    SelfRegistered => "self",
    Stopped => "stopped",
});

/// The verdict on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictFacts {
    /// The operator registers it.
    Register {
        /// Most registrations of the verdict.
        wanted: usize,
    },
    /// It may register itself.
    Admit,
    /// Its role does not allow it.
    Reject,
    /// Its registrations are kept until a conflict is resolved.
    Hold,
    /// A fact is outstanding.
    Wait,
    /// Nothing selects it.
    Ignore,
    /// No evaluation has run: the task is leaving, or was just seen.
    None,
}

/// The registrations of a task that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrationFacts {
    /// All.
    pub total: usize,
    /// Those that are drained.
    pub drained: usize,
    /// Those whose write was sent and not answered.
    pub unconfirmed: usize,
}

/// The facts that decide the state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStateFacts {
    /// ECS reports the task STOPPED, or does not show it.
    pub is_gone: bool,
    /// ECS stops the task.
    pub is_leaving: bool,
    /// The verdict.
    pub verdict: VerdictFacts,
    /// The registrations.
    pub registrations: RegistrationFacts,
    /// A warning says that a change is held: by the guard, a pause, a policy, a conflict of names.
    pub is_blocked: bool,
}

impl TaskStateView {
    /// The state of a task.
    ///
    /// | gone | verdict | registrations | blocked | state |
    /// |---|---|---|---|---|
    /// | | | any | yes | held |
    /// | yes | | none | no | stopped |
    /// | yes | | any | no | stopped |
    /// | no | reject | | no | rejected |
    /// | no | hold | | no | held |
    /// | no | | all drained | no | drained |
    /// | no | wait | | no | pending |
    /// | no | ignore | none | | ignored |
    /// | no | ignore | any | no | pending: they will be withdrawn |
    /// | no | admit | | no | self |
    /// | no | register | as many as wanted, confirmed | no | registered |
    /// | no | register | fewer, or unconfirmed | no | pending |
    pub fn of(facts: &TaskStateFacts) -> Self {
        let TaskStateFacts { is_gone, is_leaving, verdict, registrations, is_blocked } = *facts;
        let is_drained = registrations.total > 0 && registrations.drained == registrations.total;
        match verdict {
            _ if is_gone => {
                if is_blocked && registrations.total > 0 {
                    Self::Held
                } else {
                    Self::Stopped
                }
            }
            // A leaving task drains, whatever it was.
            _ if is_leaving && is_drained => Self::Drained,
            VerdictFacts::Reject => Self::Rejected,
            VerdictFacts::Hold => Self::Held,
            VerdictFacts::Ignore if registrations.total == 0 => Self::Ignored,
            _ if is_blocked => Self::Held,
            _ if is_drained => Self::Drained,
            VerdictFacts::Admit => Self::SelfRegistered,
            VerdictFacts::Register { wanted } => {
                let exact = registrations.drained == 0 && registrations.unconfirmed == 0;
                if exact && registrations.total >= wanted && !is_leaving {
                    Self::Registered
                } else {
                    Self::Pending
                }
            }
            VerdictFacts::Wait | VerdictFacts::Ignore | VerdictFacts::None => Self::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: VerdictFacts = VerdictFacts::Register { wanted: 1 };

    fn state(
        verdict: VerdictFacts,
        life: &str,
        total: usize,
        drained: usize,
        blocked: bool,
    ) -> TaskStateView {
        TaskStateView::of(&TaskStateFacts {
            is_gone: life == "gone",
            is_leaving: life == "leaving",
            verdict,
            registrations: RegistrationFacts { total, drained, unconfirmed: 0 },
            is_blocked: blocked,
        })
    }

    #[test]
    fn task_state_follows_the_table() {
        use TaskStateView as S;
        use VerdictFacts as V;
        for (verdict, life, total, drained, blocked, expected) in [
            (REGISTER, "lives", 1, 0, false, S::Registered),
            (REGISTER, "lives", 0, 0, false, S::Pending),
            (REGISTER, "lives", 1, 1, false, S::Drained),
            (V::Register { wanted: 2 }, "lives", 1, 0, false, S::Pending),
            (V::Register { wanted: 2 }, "lives", 2, 1, false, S::Pending),
            (REGISTER, "lives", 1, 0, true, S::Held),
            (REGISTER, "lives", 0, 0, true, S::Held),
            (REGISTER, "leaving", 1, 0, false, S::Pending),
            (REGISTER, "leaving", 1, 1, false, S::Drained),
            (REGISTER, "gone", 1, 1, false, S::Stopped),
            (REGISTER, "gone", 1, 0, true, S::Held),
            (REGISTER, "gone", 0, 0, true, S::Stopped),
            (V::None, "gone", 0, 0, false, S::Stopped),
            (V::None, "leaving", 1, 0, false, S::Pending),
            (V::None, "lives", 0, 0, false, S::Pending),
            (V::Wait, "lives", 0, 0, false, S::Pending),
            (V::Wait, "lives", 1, 0, false, S::Pending),
            (V::Reject, "lives", 0, 0, false, S::Rejected),
            (V::Reject, "lives", 1, 0, false, S::Rejected),
            (V::Reject, "lives", 1, 1, false, S::Rejected),
            (V::Reject, "leaving", 1, 1, false, S::Drained),
            (V::Hold, "lives", 1, 0, false, S::Held),
            (V::Ignore, "lives", 0, 0, false, S::Ignored),
            (V::Ignore, "lives", 0, 0, true, S::Ignored),
            (V::Ignore, "lives", 1, 0, false, S::Pending),
            (V::Ignore, "lives", 1, 0, true, S::Held),
            (V::Ignore, "lives", 1, 1, false, S::Drained),
            (V::Admit, "lives", 0, 0, false, S::SelfRegistered),
            (V::Admit, "lives", 1, 0, false, S::SelfRegistered),
            (V::Admit, "lives", 1, 0, true, S::Held),
        ] {
            let found = state(verdict, life, total, drained, blocked);
            assert_eq!(
                found, expected,
                "{verdict:?} {life} total {total} drained {drained} blocked {blocked}"
            );
        }
    }

    #[test]
    fn unconfirmed_registration_is_pending() {
        let facts = TaskStateFacts {
            is_gone: false,
            is_leaving: false,
            verdict: REGISTER,
            registrations: RegistrationFacts { total: 1, drained: 0, unconfirmed: 1 },
            is_blocked: false,
        };
        assert_eq!(TaskStateView::of(&facts), TaskStateView::Pending);
    }

    #[test]
    fn labels_are_those_of_the_json() {
        for state in TaskStateView::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
