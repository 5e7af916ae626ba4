// Looks at the dashboard with a real browser: node look.mjs URL TOKEN BACKEND [FOLDER FOR SCREENSHOTS]
// Prints one JSON object: what axe-core found in each view, and what happened when operating by keyboard.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.cwd()}/`);
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [url, token, backend, folder] = process.argv.slice(2);

const VIEWS = {
  light: { width: 1360, height: 900, scheme: "light" },
  dark: { width: 1360, height: 900, scheme: "dark" },
  phone: { width: 390, height: 844, scheme: "light", mobile: true },
};

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const result = { violations: {}, errors: [], wide: {} };

async function open(view) {
  const page = await browser.newPage();
  await page.setBypassCSP(false);
  page.on("pageerror", (error) => result.errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") result.errors.push(message.text()); });
  await page.setViewport({ width: view.width, height: view.height, isMobile: Boolean(view.mobile), hasTouch: Boolean(view.mobile) });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: view.scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
  await page.goto(url);
  await page.waitForSelector("#link.live", { timeout: 15000 });
  await page.waitForSelector("[data-backend]");
  await new Promise((resolve) => setTimeout(resolve, 2500)); // two statuses, so that there are rates
  return page;
}

async function judge(page, name) {
  // Evaluated by the debugger, which the page's content security policy does not bind.
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  result.violations[name] = found.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes[0].html.slice(0, 120)}`);
  result.wide[name] = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  if (folder) await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}

for (const [name, view] of Object.entries(VIEWS)) {
  const page = await open(view);
  await judge(page, name);
  if (name === "light") {
    // Without the token there is nothing to press.
    result.buttonsBefore = await page.$$eval("[data-act]", (list) => list.length);
    await page.focus("#sign");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#token-dialog[open]");
    await judge(page, "token-dialog");
    await page.focus("#token");
    await page.keyboard.type(token);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForSelector(`[data-act="drain-${backend}"]`);
    await judge(page, "operating");
    await page.focus(`[data-act="drain-${backend}"]`);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#confirm-dialog[open]");
    await judge(page, "confirm-dialog");
    result.asked = await page.$eval("#confirm-title", (element) => element.textContent);
    await page.focus("#confirm-ok");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#said:not([hidden])");
    result.said = await page.$eval("#said", (element) => element.textContent);
    await page.waitForSelector(`[data-backend="${backend}"][data-state="draining"]`, { timeout: 10000 });
    result.state = "draining";
  }
  await page.close();
}
await browser.close();
console.log(JSON.stringify(result));
