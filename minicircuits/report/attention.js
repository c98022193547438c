"use strict";
/* The page of `report.attention`: the explorer alone. */

byId("notices").append(...page.notices.map(text => el("p", {class: "notice"}, text)));
texts.push(...page.texts.map(text => givenText(text)));
select({text: 0, place: Infinity, head: page.shown_heads.length - 1});
explorer(byId("explorer"));
