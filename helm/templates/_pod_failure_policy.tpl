{{/* Generated from job/errors.py by `make generated`. A rule for exit codes names its container,
or it would apply to sidecars, too. */}}
{{- define "finetune.podFailurePolicy" -}}
rules:
  # First: a disruption by the node is not a failure of the Pod, whatever its exit code.
  - action: Ignore
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
  - action: Ignore
    onExitCodes:
      containerName: finetune
      operator: In
      values:
        - 75 # stopped by a signal, superseded, or another owner works on the run; the state is saved
  - action: FailJob
    onExitCodes:
      containerName: finetune
      operator: In
      values:
        - 2 # the settings are wrong
        - 3 # the data are wrong, or not there
        - 5 # no permission, or no credentials
        - 6 # the quality gate failed
        - 7 # the loss is not finite
        - 8 # out of memory at the smallest batch
        - 9 # an invariant of the recipe was broken
  # Everything else counts against backoffLimit:
  # 1: unexpected
  # 4: no usable GPU where one is required
  # 20: storage or network, after all retries; the verification killed; or no progress for too long
{{- end }}
