// The page's words, from the server's one catalogue.

type Tongue = "en" | "zh";
const KEPT = "weitiao.language";
const WAIT_MILLISECONDS = 1000;

let words: Record<Tongue, Record<string, string>>;
const spoken = $state<{ tongue: Tongue }>({ tongue: begin() });

function begin(): Tongue {
  const kept = remembered();
  if (kept === "en" || kept === "zh") return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

function remembered(): string | null {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

/** Load the words; while the server is away, wait for it. */
export async function loadWords(): Promise<void> {
  for (;;) {
    try {
      const reply = await fetch("./ui/words.json");
      if (reply.ok) {
        words = (await reply.json()) as typeof words;
        return;
      }
    } catch {
      // asked again below
    }
    await new Promise((done) => setTimeout(done, WAIT_MILLISECONDS));
  }
}

export function tongue(): Tongue {
  return spoken.tongue;
}

export function speak(language: Tongue): void {
  spoken.tongue = language;
  try {
    localStorage.setItem(KEPT, language);
  } catch {
    // it holds until the page is closed
  }
}

/** Return a word of the page; a test holds that each one is in the catalogue. */
export function say(word: string, values: Record<string, string | number> = {}): string {
  const text = words[spoken.tongue][word] ?? word;
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}
