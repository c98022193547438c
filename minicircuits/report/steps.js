/* Three first steps that act: a text in which something comes again, the heads that find it, and
   the model without them. */

function steps(container, write) {
  const look = head => button(`Head ${headName(head)}`, () => chooseHead(head));
  const without = head => {
    const it = button(`Switch off ${headName(head)}`, () => switchHead(head));
    follow(["run"], () => it.setAttribute("aria-pressed", isOff(head)));
    return it;
  };
  const {induction} = page, last = page.shown_heads[page.head];
  const backward = page.roles.findIndex(role => role?.startsWith("previous"));
  const previous = page.previous ?? page.shown_heads[backward];
  const text = page.merges
    ? [button("Try an example", () => write(EXAMPLES[0])), " in which something comes again; or write your own."]
    : [button("Open the text", () => select({text: page.opening, place: page.start})), " and point at its words."];
  const heads = [
    previous ? [look(previous), " looks one back. "] : null,
    induction ? [look(induction), " is the induction head: it looks at what came after the same token last time."]
              : [look(last), " is one of the heads. None here is an induction head."]];
  const removed = !write ? null : [
    previous ? [without(previous), induction ? `, and ${headName(induction)} goes blind. ` : ". "] : null,
    without(induction ?? last), ", and read below what that changes."];
  container.append(roving(el("ol", {class: "steps"}, [text, heads, removed].map(step => step && el("li", {}, step)))));
}
