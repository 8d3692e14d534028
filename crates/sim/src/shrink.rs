//! The shortest history that breaks the same rule: steps are left out as long as it still breaks.

use crate::{Plan, Template, Verdict, run};
use anyhow::Result;

/// The most histories that are tried.
const TRIES: u32 = 120;

/// Returns the plan that is left, and its verdict.
pub fn shrink(template: &Template, plan: &Plan, verdict: Verdict) -> Result<(Plan, Verdict)> {
    let Some(rule) = verdict.broken.as_ref().map(|broken| broken.rule) else { return Ok((plan.clone(), verdict)) };
    let (mut plan, mut verdict) = (plan.clone(), verdict);
    plan.steps = plan.steps.min(verdict.step + 1);
    let mut tries = 0;
    let mut chunk = (plan.steps / 2).max(1);
    loop {
        let mut shorter = false;
        let left: Vec<u64> = (0..plan.steps).filter(|step| !plan.without.contains(step)).collect();
        for steps in left.chunks(chunk as usize) {
            if tries == TRIES {
                return Ok((plan, verdict));
            }
            tries += 1;
            let mut fewer = plan.clone();
            fewer.without.extend(steps);
            let tried = run(template, &fewer)?;
            if tried.broken.as_ref().is_some_and(|broken| broken.rule == rule) {
                (plan, verdict, shorter) = (fewer, tried, true);
            }
        }
        match chunk {
            1 if !shorter => return Ok((plan, verdict)),
            1 => {}
            _ => chunk /= 2,
        }
    }
}
