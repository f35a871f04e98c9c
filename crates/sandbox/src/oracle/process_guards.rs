//! The counts of the guards of all processes of the operator. One of several replicas leads at a time, and one that leads again
//! goes on in its hour.

use std::collections::BTreeMap;

/// A state for each process.
#[derive(Clone, Debug, Default)]
pub(super) struct PerProcess<G> {
    /// The state of the process that leads, or of the only one.
    pub(super) current: G,
    leader: String,
    others: BTreeMap<String, G>,
}

impl<G: Default> PerProcess<G> {
    /// Records that a process begins as a standby.
    pub(super) fn start(&mut self, process: &str, state: G) {
        self.others.insert(process.to_owned(), state);
    }

    /// Records that this process leads from now on.
    pub(super) fn take_over(&mut self, process: &str) {
        if process == self.leader {
            return;
        }
        let next = self.others.remove(process).unwrap_or_default();
        let before = std::mem::replace(&mut self.leader, process.to_owned());
        self.others.insert(before, std::mem::replace(&mut self.current, next));
    }

    /// The states of the processes that do not lead.
    pub(super) fn others_mut(&mut self) -> impl Iterator<Item = &mut G> {
        self.others.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_that_leads_again_keeps_its_state() {
        let mut all = PerProcess::<u32>::default();
        all.start("b", 7);
        all.take_over("a");
        all.current = 1;
        all.take_over("b");
        assert_eq!(all.current, 7);
        all.take_over("a");
        assert_eq!(all.current, 1);
        all.take_over("a");
        assert_eq!(all.current, 1);
    }

    #[test]
    fn standbys_count_while_another_process_leads() {
        let mut all = PerProcess::<u32>::default();
        all.start("b", 0);
        all.others_mut().for_each(|count| *count += 3);
        all.take_over("b");
        assert_eq!(all.current, 3);
    }
}
