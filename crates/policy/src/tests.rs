//! The language against what oslo.policy answers.

use super::*;
use base::{DomainId, ProjectId, UserId};
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Answers of oslo.policy 6.0.1, taken by running it on these rules.
const GOLDEN: &str = include_str!("golden.json");

#[derive(Deserialize)]
struct Golden {
    rules: BTreeMap<String, String>,
    worlds: Vec<GoldenWorld>,
    texts: Vec<Case<String>>,
    lists: Vec<Case<serde_json::Value>>,
    broken: Vec<Case<String>>,
}

#[derive(Deserialize)]
struct GoldenWorld {
    credentials: GoldenCredentials,
    target: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct GoldenCredentials {
    user_id: String,
    user_domain_id: String,
    project_id: Option<String>,
    project_domain_id: Option<String>,
    domain_id: Option<String>,
    system_scope: Option<String>,
    roles: Vec<String>,
    is_admin: bool,
    is_admin_project: bool,
    trust_id: Option<String>,
    service_roles: Vec<String>,
}

#[derive(Deserialize)]
struct Case<T> {
    rule: T,
    allowed: Vec<bool>,
}

impl GoldenCredentials {
    fn credentials(self) -> Credentials {
        Credentials {
            user_id: UserId::new(self.user_id),
            user_domain_id: DomainId::new(self.user_domain_id),
            project_id: self.project_id.map(ProjectId::new),
            project_domain_id: self.project_domain_id.map(DomainId::new),
            domain_id: self.domain_id.map(DomainId::new),
            system_scope: self.system_scope.map(|_| "all"),
            roles: self.roles,
            is_admin: self.is_admin,
            is_admin_project: self.is_admin_project,
            trust_id: self.trust_id,
            service_roles: self.service_roles,
            ..Credentials::default()
        }
    }
}

const QUESTION: &[Rule] = &[Rule::new("question", "!", &[], "")];

fn asked(rules: &BTreeMap<String, String>, question: &serde_json::Value) -> Result<Policy> {
    let mut file: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    let text = question.to_string();
    for (name, rule) in rules.iter().filter(|(name, _)| text.contains(&format!("rule:{name}"))) {
        for (inner, rule) in rules.iter().filter(|(inner, _)| rule.contains(&format!("rule:{inner}"))) {
            file.insert(inner, rule.as_str().into());
        }
        file.insert(name, rule.as_str().into());
    }
    file.insert("question", question.clone());
    Policy::new(QUESTION, Some(&serde_json::to_string(&file).unwrap()))
}

#[test]
fn decides_as_oslo_policy_does() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let worlds: Vec<_> = golden.worlds.into_iter().map(|w| (w.credentials.credentials(), w.target)).collect();
    let texts = golden.texts.into_iter().map(|case| (serde_json::Value::String(case.rule), case.allowed));
    let mut decided = 0;
    for (rule, allowed) in texts.chain(golden.lists.into_iter().map(|case| (case.rule, case.allowed))) {
        let policy = asked(&golden.rules, &rule).unwrap_or_else(|fault| panic!("{rule}: {fault}"));
        for (index, ((creds, values), expected)) in worlds.iter().zip(allowed).enumerate() {
            let target = values.iter().fold(Target::new(), |target, (k, v)| target.with(k.as_str(), v));
            assert_eq!(policy.allows("question", creds, &target), expected, "{rule} in world {index}");
            decided += 1;
        }
    }
    assert!(decided > 300, "{decided}");
}

/// oslo.policy takes them and refuses everybody; here they are an error at start.
#[test]
fn rules_that_oslo_policy_cannot_read_are_errors() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    for case in golden.broken {
        assert!(case.allowed.iter().all(|allowed| !allowed), "{}", case.rule);
        let fault = asked(&golden.rules, &case.rule.as_str().into()).expect_err(&case.rule);
        assert!(fault.message.contains("line 1"), "{fault}");
    }
}

fn fault(yaml: &str) -> String {
    const RULES: &[Rule] =
        &[Rule::new("things:list", "role:reader", &[], ""), Rule::new("things:show", "rule:things:list", &[], "")];
    Policy::new(RULES, Some(yaml)).expect_err(yaml).message
}

#[test]
fn faults_name_the_line_and_what_is_wrong() {
    let seen = [
        "\"things:list\": \"@\"\n\"things:lisp\": \"@\"\n",
        "# a comment\n\nthings:list: role:x and\n",
        "things:list: \"rule:nowhere\"\n",
        "things:list: \"rule:things:show\"\n",
        "things:list: \"(role:x\"\n",
        "things:list: \"colour:red\"\n",
        "things:list: \"user_id:%(x)d\"\n",
        "things:list: \"@\"\nthings:list: \"!\"\n",
        "things:list: {a: b}\n",
        "- a\n",
    ]
    .map(|yaml| fault(yaml))
    .join("\n");
    expect_test::expect![[r#"
        policy.yaml, line 2: there is no rule called "things:lisp" and no rule refers to it (did you mean "things:list").
        policy.yaml, line 3: in the rule "things:list", it ends where a check is needed.
        policy.yaml, line 1: the rule "things:list" refers to "rule:nowhere", which does not exist.
        policy.yaml, line 1: the rule "things:list" refers to itself.
        policy.yaml, line 1: in the rule "things:list", a "(" is not closed.
        policy.yaml, line 1: in the rule "things:list", nothing in a token is called "colour".
        policy.yaml, line 1: in the rule "things:list", "%(x)d" has a "%" that is not %(name)s.
        policy.yaml, line 2: duplicate mapping key: things:list, set DuplicateKeyPolicy in Options if acceptable.
        policy.yaml, line 1: a rule must be a string, or the older list of lists of strings.
        policy.yaml, line 1: expected mapping start."#]].assert_eq(&seen);
}

#[test]
fn a_helper_of_the_file_is_taken_when_a_rule_uses_it() {
    const RULES: &[Rule] = &[Rule::new("things:list", "role:reader", &[], "")];
    let policy = Policy::new(RULES, Some("mine: role:mine\nthings:list: rule:mine or role:admin\n")).unwrap();
    let creds = Credentials { roles: vec!["mine".into()], ..Credentials::default() };
    assert!(policy.allows("things:list", &creds, &Target::new()));
    assert!(policy.rules().any(|rule| rule.name == "mine" && rule.default.is_none()));
    assert!(Policy::new(RULES, Some("# nothing\n\n")).is_ok());
}

#[test]
fn a_token_of_another_scope_is_told_apart() {
    const RULES: &[Rule] = &[Rule::new("p", "@", &[Scope::Project], ""), Rule::new("s", "@", &[Scope::System], "")];
    let policy = Policy::new(RULES, None).unwrap();
    let system = Credentials { system_scope: Some("all"), ..Credentials::default() };
    assert_eq!(policy.check("p", &system, &Target::new()), Decision::WrongScope);
    assert_eq!(policy.check("s", &system, &Target::new()), Decision::Allowed);
    assert_eq!(policy.check("s", &Credentials::default(), &Target::new()), Decision::WrongScope);
    assert_eq!(policy.check("unknown", &system, &Target::new()), Decision::Denied);
}

#[test]
fn a_missing_fact_owns_nothing() {
    let policy = Policy::new(&[], None).unwrap();
    let unscoped = Credentials { roles: vec!["reader".into()], ..Credentials::default() };
    assert!(!policy.allows("project_reader_api", &unscoped, &Target::project(None::<&str>)));
    assert!(!policy.allows("project_reader_api", &unscoped, &Target::new()));
}

#[test]
fn targets_are_reached_into() {
    const RULES: &[Rule] = &[Rule::new("q", "user_id:%(target.user.id)s", &[], "")];
    let policy = Policy::new(RULES, None).unwrap();
    let creds = Credentials { user_id: UserId::new("u"), ..Credentials::default() };
    let user = serde_json::json!({"user": {"id": "u"}});
    assert!(policy.allows("q", &creds, &Target::new().with("target", &user)));
    assert!(policy.allows("q", &creds, &Target::new().with("target.user", user["user"].clone())));
    assert!(!policy.allows("q", &creds, &Target::new().with("target.user", "u")));
}

#[test]
fn a_rule_that_explodes_is_refused() {
    let mut yaml = String::from("things:list: rule:r0\nr30: \"@\"\n");
    for i in 0..30 {
        yaml.push_str(&format!("r{i}: rule:r{} and rule:r{}\n", i + 1, i + 1));
    }
    assert!(fault(&yaml).contains("needs more than 100000 checks"), "{}", fault(&yaml));
    let deep = format!("things:list: {}role:x{}\n", "(".repeat(5000), ")".repeat(5000));
    assert!(fault(&deep).contains("nested more than 64 deep"));
    let nots = format!("things:list: {}role:x\n", "not ".repeat(4000));
    assert!(fault(&nots).contains("nested more than 64 deep"));
}

#[test]
fn the_sample_is_a_file_that_changes_nothing() {
    let policy = Policy::new(QUESTION, None).unwrap();
    let sample = policy.sample();
    Policy::new(QUESTION, Some(&sample)).unwrap();
    let all: String =
        sample.lines().map(|l| l.strip_prefix("#\"").map_or(String::new(), |l| format!("\"{l}\n"))).collect();
    let again = Policy::new(QUESTION, Some(&all)).unwrap();
    assert!(policy.rules().zip(again.rules()).all(|(a, b)| a.check == b.check));
}

proptest! {
    #[test]
    fn the_parser_never_panics(rule in "[()@!%':a-z_ ]{0,60}", yaml in "\\PC{0,80}") {
        let _ = parse::text(&rule);
        let _ = Policy::new(QUESTION, Some(&yaml));
    }

    #[test]
    fn not_not_is_the_same(words in proptest::collection::vec(
        prop_oneof![Just("role:reader"), Just("role:x"), Just("@"), Just("!"), Just("project_id:%(project_id)s")], 1..6),
        joins in proptest::collection::vec(prop_oneof![Just(" and "), Just(" or ")], 6)) {
        let mut rule = String::new();
        for (word, join) in words.iter().zip(&joins) { rule.push_str(word); rule.push_str(join); }
        rule.push('@');
        let policy = |text: String| Policy::new(QUESTION, Some(&format!("question: {text:?}\n"))).unwrap();
        let creds = Credentials { roles: vec!["reader".into()], project_id: Some("p".into()), ..Credentials::default() };
        let target = Target::project("p");
        let plain = policy(rule.clone()).allows("question", &creds, &target);
        prop_assert_eq!(plain, policy(format!("not (not ({rule}))")).allows("question", &creds, &target));
        prop_assert_eq!(plain, !policy(format!("not ({rule})")).allows("question", &creds, &target));
    }
}

#[test]
fn a_decision_tells_each_check() {
    const RULES: &[Rule] = &[
        Rule::new("owned", "project_id:%(project_id)s and not user_name:eve", &[], ""),
        Rule::new("list", "rule:owned and role:member or role:admin", &[Scope::Project], ""),
        Rule::new("system", "@", &[Scope::System], ""),
    ];
    let policy = Policy::new(RULES, None).unwrap();
    let creds = Credentials { roles: vec!["member".into()], project_id: Some("p".into()), ..Credentials::default() };
    assert!(policy.explain("nothing", &creds, &Target::new()).is_none());
    for rule in policy.rules() {
        for target in [Target::project("p"), Target::project("q"), Target::new()] {
            let told = policy.explain(rule.name, &creds, &target).unwrap();
            assert_eq!(told.decision, policy.check(rule.name, &creds, &target), "{}", rule.name);
            assert_eq!(told.text, rule.check);
            if told.decision != Decision::WrongScope {
                assert_eq!(told.steps[0].holds, told.decision == Decision::Allowed, "{}: {told:?}", rule.name);
            }
        }
    }
    let told = policy.explain("list", &creds, &Target::project("q")).unwrap();
    let lines: Vec<_> = told.steps.iter().map(|step| (step.depth, step.check.as_str(), step.holds)).collect();
    assert_eq!(
        lines,
        [
            (0, "any of", false),
            (1, "all of", false),
            (2, "rule:owned", false),
            (3, "all of", false),
            (4, "project_id:%(project_id)s", false),
            (4, "not", true),
            (5, "user_name:eve", false),
            (2, "role:member", true),
            (1, "role:admin", false),
        ]
    );
}
