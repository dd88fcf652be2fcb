// A conversation as a row that weitiao's data stage reads, and as the model is given it.

import type { Conversation, Message, Model, Turn, Version } from "./shapes";

/** Return the answer of the column that the conversation goes on with. */
export function goingOn(turn: Turn): Version | undefined {
  const column = turn.columns[turn.chosen];
  return column?.versions[column.shown];
}

function messages(turns: Turn[], fit: (version: Version) => boolean): Message[] {
  return turns.flatMap((turn): Message[] => {
    const version = goingOn(turn);
    if (!version?.text || !fit(version)) return [];
    return [
      { role: "user", content: turn.question },
      { role: "assistant", content: version.text },
    ];
  });
}

/** Return what was said before turn `at`: the same for every model that is asked. */
export function before(conversation: Conversation, at: number): Message[] {
  return messages(conversation.turns.slice(0, at), () => true);
}

/** Return the conversations as JSONL. Answers that were cut short teach a model never to stop:
 * they stay out, with their questions. */
export function rows(conversations: Conversation[], models: Model[]): string {
  const lines = conversations.map(({ settings, turns }) => {
    const said = messages(turns, (version) => version.state === "done" && !version.cut);
    const own = models.find((model) => model.id === settings.models[0])?.system;
    const system = settings.system ?? own;
    const first: Message[] = system ? [{ role: "system", content: system }] : [];
    return said.length ? JSON.stringify({ messages: [...first, ...said] }) + "\n" : "";
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
