//! The license gate.

use proptest::prelude::*;
use safelmm_datastore::{Access, ClassRules, GateTable, Group, LicenseClass, Permissions, Rating, Rule, Use};

use crate::support::*;

const LICENSES: [&str; 9] = [
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "GPL-3.0-only",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "LicenseRef-unknown",
    "MIT OR CC-BY-NC-4.0",
];

fn rules() -> impl Strategy<Value = ClassRules> {
    let rule = || prop::sample::select(vec![Rule::Never, Rule::WhenAttributed, Rule::Always]);
    (rule(), rule()).prop_map(|(commercial, non_commercial)| ClassRules { commercial, non_commercial })
}

prop_compose! {
    fn table()(permissive in rules(), share_alike in rules(), copyleft in rules(), non_commercial in rules()) -> GateTable {
        GateTable { permissive, share_alike, copyleft, non_commercial }
    }
}

prop_compose! {
    fn access()(
        table in prop_oneof![Just(GateTable::default()), table()],
        declared_use in prop::sample::select(vec![Use::Commercial, Use::NonCommercial]),
        rating_ceiling in prop::option::of(prop::sample::select(Rating::ALL.to_vec())),
        attributed in any::<bool>(),
    ) -> Access {
        Access { declared_use, rating_ceiling, attributed, table }
    }
}

prop_compose! {
    fn group()(
        license in prop::sample::select(LICENSES.to_vec()),
        rating in prop::sample::select(Rating::ALL.to_vec()),
        retrieve in any::<bool>(),
    ) -> Group {
        Group { license: license.parse().unwrap(), rating, retrieve }
    }
}

proptest! {
    #[test]
    fn no_table_allows_what_is_never_allowed(access in access(), group in group()) {
        let allowed = access.allows(&group);
        let class = group.license.class();
        prop_assert!(!allowed || class < LicenseClass::NoDerivatives);
        prop_assert!(!allowed || group.retrieve);
        prop_assert!(!allowed || access.rating_ceiling.is_none_or(|ceiling| group.rating <= ceiling));
        // Declaring more, or a lower ceiling, never opens more.
        let lower = Access { rating_ceiling: Some(Rating::G), ..access };
        prop_assert!(!lower.allows(&group) || allowed || group.rating > Rating::G);
        if access.table == GateTable::default() {
            let commercial = Access { declared_use: Use::Commercial, ..access };
            let other = Access { declared_use: Use::NonCommercial, ..access };
            prop_assert!(!commercial.allows(&group) || other.allows(&group));
            prop_assert!(!commercial.allows(&group) || class != LicenseClass::NonCommercial);
            let silent = Access { attributed: false, ..access };
            prop_assert!(!silent.allows(&group) || class != LicenseClass::Copyleft);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Documents that a request may not use change nothing, whether they are there or not.
    #[test]
    fn what_may_not_be_used_influences_nothing(access in access(), seed in 0_u64..100, kinds in prop::collection::vec((0_usize..9, 0_usize..4, any::<Option<bool>>()), 12)) {
        let folder = tempfile::tempdir().unwrap();
        let mut documents = random_documents(seed, kinds.len());
        let mut may = Vec::new();
        for (document, (license, rating, retrieve)) in documents.iter_mut().zip(&kinds) {
            document.license = LICENSES[*license].parse().unwrap();
            document.rating = Some(Rating::ALL[*rating]);
            document.permissions = Some(Permissions { train: None, retrieve: *retrieve });
            let group = Group {
                license: document.license.clone(),
                rating: Rating::ALL[*rating],
                retrieve: document.retrieve(),
            };
            if access.allows(&group) {
                may.push(document.clone());
            }
        }
        let (full, part) = (create(&folder.path().join("full")), create(&folder.path().join("part")));
        add(&full, &documents);
        add(&part, &may);
        let (full, part) = (full.view(&access, &[]), part.view(&access, &[]));
        prop_assert_eq!(full.is_empty(), may.is_empty());
        prop_assert_eq!(full.licenses(), part.licenses());
        prop_assert_eq!(full.tokens(), part.tokens());
        prop_assert_eq!(ask_all(&full, seed), ask_all(&part, seed));
    }
}

#[test]
fn what_is_not_allowed_does_not_change_the_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    add(&store, &[document("a", "Free for everyone to read and use.", "CC0-1.0")]);
    let before = store.view(&commercial(), &[]).fingerprint();
    add(&store, &[document("b", "Not for commercial use at all.", "CC-BY-NC-4.0")]);
    assert_eq!(store.view(&commercial(), &[]).fingerprint(), before);
    assert_ne!(store.view(&all(), &[]).fingerprint(), before);
    add(&store, &[document("c", "Free as well.", "CC0-1.0")]);
    assert_ne!(store.view(&commercial(), &[]).fingerprint(), before);
}
