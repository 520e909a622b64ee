//! The license gate: which documents may influence a request.
//!
//! Pure functions of what a document says of itself (license, rating, `permissions.retrieve`) and of what a request
//! declares (use, rating ceiling, whether its answer names its sources), with a table that an operator may narrow or
//! widen. What is unknown is never allowed.

use serde::{Deserialize, Serialize};

use crate::license::{License, LicenseClass};
use crate::rating::Rating;

/// What a request declares it will use the answer for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Any use; what a request that says nothing declares.
    #[default]
    Commercial,
    /// Use "not primarily intended for or directed towards commercial advantage" (CC BY-NC 4.0, section 1).
    NonCommercial,
}

/// When documents of a license class may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Not at all.
    Never,
    /// In requests whose answers name their sources.
    WhenAttributed,
    /// In every request.
    Always,
}

/// One row of the table: the rules of a license class for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClassRules {
    /// For commercial use.
    pub commercial: Rule,
    /// For non-commercial use.
    pub non_commercial: Rule,
}

/// License class × declared use → rule.
///
/// The default: permissive and share-alike texts for both uses. Copyleft texts for both uses, but only in answers that
/// name their sources: whoever conveys a copy, verbatim or modified, must pass on the copyright and license notices
/// (GPL-3.0 sections 4 and 5, MPL-2.0 section 3.4), which an answer without attribution would drop. Non-commercial
/// texts for non-commercial use (CC BY-NC 4.0, section 2(a)(1)). No-derivatives texts never, since text that enters a
/// generation is adapted (CC BY-ND 4.0, section 2(a)(1)(B) lets adapted material be produced but not shared).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GateTable {
    /// CC0, CC-BY, MIT, Apache.
    pub permissive: ClassRules,
    /// CC-BY-SA.
    pub share_alike: ClassRules,
    /// GPL, MPL.
    pub copyleft: ClassRules,
    /// CC-BY-NC.
    pub non_commercial: ClassRules,
}

impl Default for GateTable {
    fn default() -> GateTable {
        let both = |rule| ClassRules { commercial: rule, non_commercial: rule };
        GateTable {
            permissive: both(Rule::Always),
            share_alike: both(Rule::Always),
            copyleft: both(Rule::WhenAttributed),
            non_commercial: ClassRules { commercial: Rule::Never, non_commercial: Rule::Always },
        }
    }
}

impl GateTable {
    /// The rule for a class and a use. No table allows no-derivatives or unknown licenses.
    pub fn rule(&self, class: LicenseClass, declared: Use) -> Rule {
        let rules = match class {
            LicenseClass::Permissive => self.permissive,
            LicenseClass::ShareAlike => self.share_alike,
            LicenseClass::Copyleft => self.copyleft,
            LicenseClass::NonCommercial => self.non_commercial,
            LicenseClass::NoDerivatives | LicenseClass::Unknown => return Rule::Never,
        };
        match declared {
            Use::Commercial => rules.commercial,
            Use::NonCommercial => rules.non_commercial,
        }
    }
}

/// What a request declares and may do, as far as the gate looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// The declared use.
    pub declared_use: Use,
    /// The strongest rating that may be used; `None` allows all.
    pub rating_ceiling: Option<Rating>,
    /// Whether the answer names its sources.
    pub attributed: bool,
    /// The table in force.
    pub table: GateTable,
}

/// What the gate looks at in a document. Documents that are alike in it share segments, so that a request opens those
/// that it may use and no others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    /// The license.
    pub license: License,
    /// The rating.
    pub rating: Rating,
    /// `permissions.retrieve` of the documents.
    pub retrieve: bool,
}

impl Access {
    /// Whether documents of `group` may be used only where they are named.
    pub fn must_name(&self, group: &Group) -> bool {
        self.table.rule(group.license.class(), self.declared_use) == Rule::WhenAttributed
    }

    /// Whether documents of `group` may influence the request.
    pub fn allows(&self, group: &Group) -> bool {
        let licensed = match self.table.rule(group.license.class(), self.declared_use) {
            Rule::Never => false,
            Rule::WhenAttributed => self.attributed,
            Rule::Always => true,
        };
        licensed && group.retrieve && self.rating_ceiling.is_none_or(|ceiling| group.rating <= ceiling)
    }
}
