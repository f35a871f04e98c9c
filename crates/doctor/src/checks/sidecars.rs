//! Container definitions of Kuma's sidecars, by the rules of `audit`: one line for each rule, however many workloads break it.

use std::sync::Arc;

use crate::catalogue::PLANE_SIDECARS;
use crate::facts::DoctorFacts;
use crate::report::CheckResult;
use ecs_mesh_api::ControlPlaneType;
use ecs_mesh_audit::{Severity, SidecarProblem, SidecarReport};
use ecs_mesh_model::docs_url;

/// The names of workloads that are shown of one problem.
const MAX_NAMES: usize = 3;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let mut bindings = facts.manifests.set.bindings.values();
    if !bindings.any(|binding| binding.control_plane_type == ControlPlaneType::Kuma) {
        return Vec::new();
    }
    let observed = facts.aws.as_ref().ok().and_then(|aws| aws.observations.as_ref());
    match observed.and_then(|observed| observed.sidecars.as_ref()) {
        Some(report) => of_report(report),
        None => {
            vec![PLANE_SIDECARS.unknown(
                "sidecars",
                "the running tasks were not read",
                "see the checks of AWS",
            )]
        }
    }
}

fn of_report(report: &SidecarReport) -> Vec<CheckResult> {
    let mut checks: Vec<CheckResult> =
        report.problems.iter().map(|problem| of_problem(problem, report)).collect();
    if report.unread > 0 || report.failure.is_some() {
        let left = match report.unread {
            0 => String::new(),
            left => format!("{left} task definitions were not read; "),
        };
        let reason = report.failure.as_deref().unwrap_or("the time for these reads was over");
        let fix = "run `ecs-mesh-operator audit`, which reads all of them";
        checks.push(PLANE_SIDECARS.unknown("sidecars", format!("{left}{reason}"), fix));
    }
    if checks.is_empty() {
        let subject = workloads(report.workloads);
        checks.push(match report.workloads {
            0 => PLANE_SIDECARS.info(subject, "no task of a Workload runs"),
            _ => PLANE_SIDECARS.ok(subject, "their container definitions fit"),
        });
    }
    checks
}

fn of_problem(problem: &SidecarProblem, report: &SidecarReport) -> CheckResult {
    let SidecarProblem { rule, severity, workloads: found, definitions, example, message, fix } = problem;
    let names: Vec<&str> = found.iter().take(MAX_NAMES).map(Arc::as_ref).collect();
    let more = match found.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let which = format!("{} of {} ({}{more})", found.len(), workloads(report.workloads), names.join(", "));
    let first = if found.len() == 1 { String::new() } else { format!("{example}: ") };
    let plural = if *definitions == 1 { "" } else { "s" };
    let message = format!("{which}, {definitions} task definition{plural}; {first}{message}");
    let fix = format!("{fix}; {}#{}", docs_url("reference/audit.md"), rule.to_lowercase());
    match severity {
        Severity::Error => PLANE_SIDECARS.error(*rule, message, fix),
        Severity::Warning => PLANE_SIDECARS.warning(*rule, message, fix),
        Severity::Unknown => PLANE_SIDECARS.unknown(*rule, message, fix),
        Severity::Info => PLANE_SIDECARS.info(*rule, message),
    }
}

fn workloads(count: usize) -> String {
    format!("{count} workload{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CheckStatus;

    fn problem(severity: Severity, count: usize) -> SidecarProblem {
        SidecarProblem {
            rule: "KUMA-SIDECAR-MESH",
            severity,
            workloads: (0..count).map(|n| format!("w-{n:03}").into()).collect(),
            definitions: count + 1,
            example: "w-000".into(),
            message: "sidecar: the mesh is \"a\"".to_owned(),
            fix: "give --mesh".to_owned(),
        }
    }

    #[test]
    fn four_hundred_workloads_have_one_line_a_rule() {
        let problems = vec![problem(Severity::Error, 400), problem(Severity::Info, 1)];
        let found = of_report(&SidecarReport { workloads: 400, problems, ..SidecarReport::default() });
        let seen: Vec<_> = found.iter().map(|one| (one.status, one.subject.as_str())).collect();
        assert_eq!(
            seen,
            [(CheckStatus::Error, "KUMA-SIDECAR-MESH"), (CheckStatus::Info, "KUMA-SIDECAR-MESH")]
        );
        assert_eq!(
            found[0].message,
            "400 of 400 workloads (w-000, w-001, w-002 and 397 more), 401 task definitions; w-000: sidecar: the mesh is \"a\""
        );
        assert!(found[0].fix.as_deref().unwrap().ends_with("reference/audit.md#kuma-sidecar-mesh"));
    }

    #[test]
    fn definitions_that_were_not_read_are_unknown() {
        let unread = SidecarReport { workloads: 3, unread: 5, ..SidecarReport::default() };
        let found = of_report(&unread);
        assert_eq!(found[0].status, CheckStatus::Unknown);
        assert!(found[0].message.starts_with("5 task definitions"), "{found:?}");
        let fine = of_report(&SidecarReport { workloads: 3, ..SidecarReport::default() });
        assert_eq!((fine[0].status, fine[0].subject.as_str()), (CheckStatus::Ok, "3 workloads"));
        assert_eq!(of_report(&SidecarReport::default())[0].status, CheckStatus::Info);
    }
}
