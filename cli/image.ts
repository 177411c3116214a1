/** Entry of the proxy's image: the sidecar, or `ambassador run` when AMBASSADOR_CONFIG names a file with Ambassadors. */
import { PlainEnv } from '../proxy/config/env.ts'
import { main } from '../proxy/main.ts'
import { ExitCode } from '../proxy/process.ts'
import { tuneSoon } from '../proxy/runtime/engine.ts'

tuneSoon()
void main(process.env, async (path, settings) => {
  const { serveFiles } = await import('./commands/run.ts')
  // Whoever mounts Secrets into a plain container mounts them where the sidecar of a pod has them.
  await serveFiles([path], { ...settings, secrets: settings.secretsDir })
  console.error(`${PlainEnv.config}: '${path}' cannot be used, correct what is said above`)
  process.exit(ExitCode.settings)
})
