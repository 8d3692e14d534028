//! What to do next for a volume: a pure decision over its spec and what there is.

use super::driver::Look;
use agent_api::{Desired, VolumeSpec};
use base::VolumeSnapshotId;

/// What the name of a snapshot begins with that was made to copy the volume, and ends with the copy's id.
pub const COPY: &str = "copy-";

/// The next step. All of them may be repeated.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Rest,
    Create,
    Extend(u64),
    Snapshot(VolumeSnapshotId),
    DeleteSnapshot(VolumeSnapshotId),
    /// Give room back, and stand on nothing else where that is asked for.
    Tidy {
        flatten: bool,
    },
    Delete,
}

/// `done_with` says of a snapshot that was made for a copy that nobody needs it any more; `tidy` that tidying is worth
/// another attempt.
pub fn next(spec: &VolumeSpec, look: Option<&Look>, done_with: impl Fn(&str) -> bool, tidy: bool) -> Step {
    let Some(look) = look else {
        return if spec.desired == Desired::Absent { Step::Delete } else { Step::Create };
    };
    if spec.desired == Desired::Absent {
        return Step::Delete;
    }
    let size = spec.size_gib << 30;
    // Before snapshots: a snapshot that was asked for together with a growth has the new size.
    if look.size_bytes < size {
        return Step::Extend(size);
    }
    let there = |id: &VolumeSnapshotId| look.snapshots.iter().any(|(it, _)| it == id);
    for snapshot in &spec.snapshots {
        match (snapshot.desired, there(&snapshot.id)) {
            (Desired::Absent, true) => return Step::DeleteSnapshot(snapshot.id.clone()),
            (Desired::Present, false) => return Step::Snapshot(snapshot.id.clone()),
            _ => {}
        }
    }
    let copied = look.snapshots.iter().find(|(id, _)| id.strip_prefix(COPY).is_some_and(&done_with));
    if let Some((id, _)) = copied {
        return Step::DeleteSnapshot(id.clone());
    }
    // Where its own snapshots stand on it, a shared layer stays: nothing that could be done at once.
    let flatten = spec.flatten && look.shares && look.snapshots.is_empty();
    if tidy && (look.untidy || flatten) { Step::Tidy { flatten } } else { Step::Rest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::SnapshotSpec;

    fn spec(change: impl FnOnce(&mut VolumeSpec)) -> VolumeSpec {
        let mut spec = VolumeSpec {
            id: "v".into(),
            generation: 1,
            size_gib: 1,
            desired: Desired::Present,
            source: Default::default(),
            snapshots: Vec::new(),
            flatten: false,
            made: false,
        };
        change(&mut spec);
        spec
    }

    fn snapshot(id: &str, desired: Desired) -> SnapshotSpec {
        SnapshotSpec { id: id.into(), desired }
    }

    #[test]
    fn each_difference_has_its_step() {
        let there = Look { size_bytes: 1 << 30, ..Look::default() };
        let with = |ids: &[&str]| Look {
            snapshots: ids.iter().map(|id| ((*id).into(), 1)).collect(),
            untidy: true,
            shares: true,
            ..there.clone()
        };
        let check = |spec: VolumeSpec, look: Option<&Look>, expected: Step| {
            assert_eq!(next(&spec, look, |copy| copy == "made", true), expected, "{spec:?}, {look:?}");
        };
        check(spec(|_| {}), None, Step::Create);
        check(spec(|it| it.desired = Desired::Absent), None, Step::Delete);
        check(spec(|it| it.desired = Desired::Absent), Some(&with(&["a"])), Step::Delete);
        check(spec(|_| {}), Some(&there), Step::Rest);
        let both = spec(|it| (it.size_gib, it.snapshots) = (2, vec![snapshot("a", Desired::Present)]));
        check(both, Some(&there), Step::Extend(2 << 30));
        let named = |desired| spec(|it| it.snapshots = vec![snapshot("a", desired)]);
        check(named(Desired::Present), Some(&there), Step::Snapshot("a".into()));
        check(named(Desired::Absent), Some(&there), Step::Rest);
        check(named(Desired::Absent), Some(&with(&["a"])), Step::DeleteSnapshot("a".into()));
        check(spec(|_| {}), Some(&with(&["copy-made"])), Step::DeleteSnapshot("copy-made".into()));
        check(spec(|_| {}), Some(&with(&["copy-other"])), Step::Tidy { flatten: false });
        // A snapshot that is not named is left as it is.
        check(spec(|it| it.flatten = true), Some(&with(&["a"])), Step::Tidy { flatten: false });
        check(spec(|it| it.flatten = true), Some(&with(&[])), Step::Tidy { flatten: true });
        assert_eq!(next(&spec(|_| {}), Some(&with(&[])), |_| false, false), Step::Rest);
    }
}
