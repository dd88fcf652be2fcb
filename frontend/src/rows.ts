// A conversation as a row that weitiao's data stage reads, and as the model is given it.

import type { Origin, Conversation, Message, Model, Turn, Version } from "./shapes";

/** Return the answer of the column that the conversation goes on with. */
export function goingOn(turn: Turn): Version | undefined {
  const column = turn.columns[turn.chosen];
  return column?.versions[column.shown];
}

function pair(turn: Turn, version: Version | undefined): Message[] {
  if (!version?.text) return [];
  return [
    { role: "user", content: turn.question },
    { role: "assistant", content: version.text },
  ];
}

function first(system: string | null | undefined): Message[] {
  return system ? [{ role: "system", content: system }] : [];
}

/** Return the way to the last turn: the same for every model that is asked. */
export function wayToLast(turns: Turn[]): Origin["way"] {
  return turns.slice(0, -1).map(({ chosen, columns }) => [chosen, columns[chosen]?.shown ?? 0]);
}

/** Return what was said on the way, and the question at its end. */
export function along(turns: Turn[], way: Origin["way"]): Message[] {
  const said = way.flatMap(([column, shown], at) =>
    pair(turns[at]!, turns[at]!.columns[column]?.versions[shown]),
  );
  return [...said, { role: "user", content: turns[way.length]!.question }];
}

/** Return what an answer was asked with; null where that was not kept. */
export function askedWith(turns: Turn[], { origin }: Version): Message[] | null {
  return origin ? [...first(origin.system), ...along(turns, origin.way)] : null;
}

/** Return the conversations as JSONL. Answers that were cut short teach a model never to stop:
 * they stay out, with their questions. */
export function rows(conversations: Conversation[], models: Model[]): string {
  const lines = conversations.map(({ settings, turns }) => {
    const said = turns.flatMap((turn) => {
      const version = goingOn(turn);
      return version?.state === "done" && !version.cut ? pair(turn, version) : [];
    });
    const own = models.find((model) => model.id === settings.models[0])?.system;
    const all = [...first(settings.system ?? own), ...said];
    return said.length ? JSON.stringify({ messages: all }) + "\n" : "";
  });
  return lines.join("");
}

/** Hand a file to the user. */
export function download(name: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
