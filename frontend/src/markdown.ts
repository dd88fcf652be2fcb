// Markdown to tokens; Markdown.svelte puts them in as text, so that no answer becomes HTML.

import { Marked, type Token } from "marked";

const BOLD = /^\*\*(?=[^\s*])([^]*?[^\s])\*\*(?!\*)/;

const marked = new Marked({
  gfm: true,
  breaks: true,
  tokenizer: {
    // "3~5 天，10~12 元" is no struck-out text: that takes two tildes.
    del(source) {
      return source.startsWith("~~") ? false : undefined;
    },
  },
  extensions: [
    {
      // "**重点：**内容" is bold for everybody but CommonMark, which wants a blank after it.
      name: "strong",
      level: "inline",
      start: (source) => source.indexOf("**"),
      tokenizer(source) {
        const [raw, text] = BOLD.exec(source) ?? [];
        if (!raw || !text) return undefined;
        return { type: "strong", raw, text, tokens: this.lexer.inlineTokens(text) };
      },
    },
  ],
});

export function read(text: string): Token[] {
  return marked.lexer(text);
}

/** Return an address that may be opened; null for scripts and the like. */
export function safe(address: string): string | null {
  return /^(https?:|mailto:)/i.test(address) ? address : null;
}
