"""The contract as this project has it: each type's fields, each enum's values, in a form to compare with.

Facts of the API that clients know, and what we add to it; the schema itself is written in
``circuit_breaker_server/schema``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ENUMS", "MUTATIONS", "QUERIES", "SUBSCRIPTIONS", "TYPES", "UNIONS"]

QUERIES = """
    health: String!;
    workflow(id: String!): WorkflowGQL;
    workflows(first: Int, after: String): [WorkflowGQL!]!;
    resource(id: String!): ResourceGQL;
    resources(workflowId: String, first: Int, after: String): [ResourceGQL!]!;
    availableActivities(resourceId: String!): [ActivityGQL!]!;
    state(workflowId: String!, stateId: String!): StateGQL;
    workflowStates(workflowId: String!): [StateGQL!]!;
    agent(id: String!): AgentDefinitionGQL;
    agents(first: Int, after: String): [AgentDefinitionGQL!]!;
    stateAgentConfigs(stateId: String!, first: Int, after: String): [StateAgentConfigGQL!]!;
    agentExecution(id: String!): AgentExecutionGQL;
    resourceExecutions(resourceId: String!, first: Int, after: String): [AgentExecutionGQL!]!;
    llmProviders(first: Int, after: String): [LlmProviderGQL!]!;
    llmProvider(id: String!): LlmProviderGQL;
    budgetStatus(userId: String, projectId: String): BudgetStatusGQL!;
    costAnalytics(input: CostAnalyticsInput!): CostAnalyticsGQL!;
    mcpServers(type: McpServerType, status: McpServerStatus, pagination: PaginationInput):
        McpServerConnection!;
    mcpServer(id: ID!): McpServer;
    mcpServersByTenant(tenantId: String!, pagination: PaginationInput): McpServerConnection!;
    mcpOAuthProviders: [McpOAuthProvider!]!;
    mcpServerCapabilities(serverId: ID!): McpServerCapabilities;
    mcpServerHealth(serverId: ID!): McpServerHealth!;
    mcpSessions(userId: String, serverId: ID, pagination: PaginationInput): McpSessionConnection!;
    rule(id: String!): RuleGQL;
    rules(tags: [String!], first: Int, after: String): [RuleGQL!]!;
    workflowRules(workflowId: String!): [RuleGQL!]!;
    natsResource(id: String!): NatsResourceGQL;
    resourcesInState(workflowId: String!, stateId: String!, first: Int, after: String): [NatsResourceGQL!]!;
    findResource(workflowId: String!, resourceId: String!): NatsResourceGQL
"""

MUTATIONS = """
    createWorkflow(input: WorkflowDefinitionInput!): WorkflowGQL!;
    createResource(input: ResourceCreateInput!): ResourceGQL!;
    executeActivity(input: ActivityExecuteInput!): ResourceGQL!;
    createState(input: StateDefinitionInput!): StateGQL!;
    updateState(workflowId: String!, stateId: String!, input: StateUpdateInput!): StateGQL!;
    createAgent(input: AgentDefinitionInput!): AgentDefinitionGQL!;
    createStateAgentConfig(input: StateAgentConfigInput!): StateAgentConfigGQL!;
    triggerStateAgents(input: TriggerStateAgentsInput!): [AgentExecutionGQL!]!;
    llmChatCompletion(input: LlmChatCompletionInput!): LlmResponseGQL!;
    configureLlmProvider(input: LlmProviderConfigInput!): LlmProviderGQL!;
    setBudget(input: BudgetInput!): BudgetStatusGQL!;
    createMcpServer(input: CreateMcpServerInput!): McpServer!;
    updateMcpServer(id: ID!, input: UpdateMcpServerInput!): McpServer!;
    deleteMcpServer(id: ID!): ApiResponse!;
    configureMcpOAuth(input: ConfigureMcpOAuthInput!): McpOAuthConfig!;
    configureMcpJwt(input: ConfigureMcpJwtInput!): McpJwtConfig!;
    initiateMcpOAuth(input: InitiateMcpOAuthInput!): McpOAuthInitiation!;
    completeMcpOAuth(input: CompleteMcpOAuthInput!): McpSession!;
    authenticateMcpJwt(input: AuthenticateMcpJwtInput!): McpSession!;
    refreshMcpSession(sessionId: ID!): McpSession!;
    revokeMcpSession(sessionId: ID!): ApiResponse!;
    registerMcpCapabilities(input: RegisterMcpCapabilitiesInput!): McpServerCapabilities!;
    toggleMcpServer(id: ID!, enabled: Boolean!): McpServer!;
    testMcpConnection(serverId: ID!): McpConnectionTest!;
    createRule(input: RuleInput!): RuleGQL!;
    updateRule(id: String!, input: RuleInput!): RuleGQL!;
    deleteRule(id: String!): Boolean!;
    evaluateRule(input: RuleEvaluationInput!): RuleEvaluationResultGQL!;
    createWorkflowInstance(input: CreateWorkflowInstanceInput!): NatsResourceGQL!;
    executeActivityWithNats(input: ExecuteActivityWithNatsInput!): NatsResourceGQL!;
    cancelAgentExecution(executionId: String!): AgentExecutionGQL!;
    applyCredit(userId: String, projectId: String, amount: Float!): BudgetStatusGQL!
"""

SUBSCRIPTIONS = """
    resourceUpdates(resourceId: String, workflowId: String, state: String): ResourceGQL!;
    workflowEvents(workflowId: String!): WorkflowEventGQL!;
    agentExecutionStream(executionId: String, agentId: String, resourceId: String): AgentExecutionEventGQL!;
    llmStream(requestId: String!): LlmStreamEventGQL!;
    costUpdates(userId: String, projectId: String): CostUpdateEventGQL!;
    mcpServerStatusUpdates(serverId: ID): McpServerStatusEvent!;
    mcpSessionEvents(userId: String, serverId: ID): McpSessionEvent!;
    natsResourceStream(workflowId: String!, stateId: String): NatsResourceEventGQL!;
    mcpCapabilityUpdates(serverId: ID!): McpServerCapabilities!
"""

TYPES: Mapping[str, str] = {
    "ResourceGQL": """id: ID!; workflowId: String!; state: String!; stateDefinition: StateGQL;
        data: JSON!; metadata: JSON!; createdAt: String!; updatedAt: String!;
        history: [HistoryEventGQL!]!""",
    "StateGQL": """id: String!; name: String!; description: String; stateType: StateType!;
        isInitial: Boolean!; isTerminal: Boolean!; config: StateConfigGQL;
        allowedTransitions: [String!]!; availableActivities: [ActivityGQL!]!;
        createdAt: String!; updatedAt: String!""",
    "HistoryEventGQL": """timestamp: String!; activity: String!; fromState: String!;
        toState: String!; data: JSON""",
    "StateConfigGQL": """timeoutSeconds: Int; autoTransition: AutoTransitionConfigGQL;
        notifications: StateNotificationConfigGQL; metadata: JSON""",
    "ActivityGQL": """id: String!; name: String; fromStates: [String!]!; toState: String!;
        conditions: [String!]!; description: String""",
    "AutoTransitionConfigGQL": """enabled: Boolean!; delaySeconds: Int!; targetState: String!;
        conditions: [String!]!""",
    "StateNotificationConfigGQL": "enabled: Boolean!; channels: [String!]!; templates: JSON",
    "WorkflowEventGQL": """eventType: WorkflowEventType!; workflowId: String!;
        resourceId: String; timestamp: String!; data: JSON!; triggeredBy: String;
        natsSequence: String""",
    "AgentExecutionEventGQL": """eventType: AgentExecutionEventType!; executionId: String!;
        agentId: String!; resourceId: String!; status: AgentExecutionStatusGQL!;
        timestamp: String!; data: JSON; error: String""",
    "LlmStreamEventGQL": """eventType: LlmStreamEventType!; requestId: String!; delta: String;
        token: String; isComplete: Boolean!; timestamp: String!; usage: TokenUsageGQL;
        error: String""",
    "TokenUsageGQL": """promptTokens: Int!; completionTokens: Int!; totalTokens: Int!;
        estimatedCost: Float!""",
    "CostUpdateEventGQL": """eventType: CostEventType!; userId: String; projectId: String;
        costDelta: Float!; totalCost: Float!; budget: BudgetStatusGQL; timestamp: String!;
        provider: String; model: String; tokenUsage: TokenUsageGQL""",
    "BudgetStatusGQL": """budgetId: String!; limit: Float!; used: Float!;
        percentageUsed: Float!; isExhausted: Boolean!; isWarning: Boolean!;
        remaining: Float!; message: String!""",
    "McpServerStatusEvent": """serverId: ID!; oldStatus: McpServerStatus!;
        newStatus: McpServerStatus!; timestamp: DateTime!; data: JSON""",
    "McpSessionEvent": """sessionId: ID!; type: McpSessionEventType!; session: McpSession!;
        timestamp: DateTime!; data: JSON""",
    "McpSession": """id: ID!; server: McpServer!; userId: String!; status: McpSessionStatus!;
        authMethod: McpAuthMethod!; accessToken: String; tokenExpiresAt: DateTime;
        refreshToken: String; metadata: JSON; createdAt: DateTime!;
        lastActivityAt: DateTime!; expiresAt: DateTime!; requestCount: Int!;
        userAgent: String; ipAddress: String""",
    "Node": "id: ID!",
    "McpServer": """id: ID!; name: String!; description: String; type: McpServerType!;
        status: McpServerStatus!; tenantId: String!; config: McpServerConfig!;
        auth: McpAuthConfig; capabilities: McpServerCapabilities; health: McpServerHealth;
        activeSessionsCount: Int!; metadata: JSON; tags: [String!]!; enabled: Boolean!;
        audit: AuditInfo!""",
    "McpServerConfig": """endpoint: String; timeoutSeconds: Int!; maxConnections: Int!;
        ssl: McpSslConfig; retry: McpRetryConfig!; rateLimit: McpRateLimitConfig;
        headers: JSON""",
    "McpServerCapabilities": """serverId: ID!; tools: [McpTool!]!; resources: [McpResource!]!;
        prompts: [McpPrompt!]!; features: McpServerFeatures!; protocolVersion: String!;
        lastUpdated: DateTime!""",
    "McpServerHealth": """status: McpHealthStatus!; lastCheckAt: DateTime!;
        responseTimeMs: Int; details: McpHealthDetails!; uptimeSeconds: Int; error: String""",
    "AuditInfo": """createdBy: String; createdAt: DateTime!; updatedBy: String;
        updatedAt: DateTime!; version: Int!""",
    "McpSslConfig": """verify: Boolean!; caCert: String; clientCert: String;
        clientKey: String""",
    "McpRetryConfig": """maxAttempts: Int!; initialDelayMs: Int!; maxDelayMs: Int!;
        backoffMultiplier: Float!; jitterFactor: Float!""",
    "McpRateLimitConfig": "requestsPerSecond: Int!; burstSize: Int!; windowSeconds: Int!",
    "McpOAuthConfig": """provider: McpOAuthProvider!; clientId: String!; scopes: [String!]!;
        redirectUri: String!; additionalParams: JSON; refreshConfig: McpTokenRefreshConfig!;
        metadata: JSON""",
    "McpJwtConfig": """issuer: String!; audience: String; publicKey: String!;
        algorithm: String!; expirationSeconds: Int!; customClaims: JSON; metadata: JSON""",
    "McpTool": """name: String!; description: String!; inputSchema: JSON!; category: String;
        deprecated: Boolean!; metadata: JSON""",
    "McpResource": """uri: String!; name: String!; description: String; type: String!;
        mimeType: String; metadata: JSON""",
    "McpPrompt": """name: String!; description: String!; template: String!;
        parameters: [McpPromptParameter!]!; category: String; metadata: JSON""",
    "McpServerFeatures": """streaming: Boolean!; fileOperations: Boolean!;
        notifications: Boolean!; batchOperations: Boolean!; maxRequestSize: Int;
        contentTypes: [String!]!""",
    "McpHealthDetails": """connection: McpHealthStatus!; authentication: McpHealthStatus!;
        capabilities: McpHealthStatus!; resources: McpHealthStatus!; tools: McpHealthStatus!""",
    "McpOAuthProvider": """id: String!; name: String!; type: McpOAuthProviderType!;
        authorizationEndpoint: String!; tokenEndpoint: String!; userInfoEndpoint: String;
        revocationEndpoint: String; supportedScopes: [String!]!; config: JSON;
        enabled: Boolean!""",
    "McpTokenRefreshConfig": """autoRefresh: Boolean!; refreshThresholdSeconds: Int!;
        maxRefreshAttempts: Int!; refreshRetryDelaySeconds: Int!""",
    "McpPromptParameter": """name: String!; description: String; type: String!;
        required: Boolean!; defaultValue: JSON; constraints: JSON""",
    "Connection": "pageInfo: PageInfo!; totalCount: Int!",
    "Edge": "cursor: String!",
    "ApiResponse": "success: Boolean!; message: String!; errorCode: String; data: JSON",
    "PageInfo": """hasNextPage: Boolean!; hasPreviousPage: Boolean!; startCursor: String;
        endCursor: String; totalCount: Int""",
    "PaginationInput": "first: Int; after: String; last: Int; before: String",
    "WorkflowGQL": """id: ID!; name: String!; description: String; states: [StateGQL!]!;
        activities: [ActivityGQL!]!; initialState: String!; createdAt: String!;
        updatedAt: String!""",
    "WorkflowDefinitionInput": """name: String!; states: [StateDefinitionInput!]!;
        activities: [ActivityDefinitionInput!]!; initialState: String!; description: String""",
    "StateDefinitionInput": """id: String!; name: String!; workflowId: String!;
        description: String; stateType: StateType!; isInitial: Boolean = false;
        isTerminal: Boolean = false; config: StateConfigInput""",
    "StateUpdateInput": """name: String; description: String; stateType: StateType;
        isTerminal: Boolean; config: StateConfigInput""",
    "StateConfigInput": """timeoutSeconds: Int; autoTransition: AutoTransitionConfigInput;
        notifications: StateNotificationConfigInput; metadata: JSON""",
    "AutoTransitionConfigInput": """enabled: Boolean!; delaySeconds: Int!;
        targetState: String!; conditions: [String!]!""",
    "StateNotificationConfigInput": """enabled: Boolean!; channels: [String!]!;
        templates: JSON""",
    "ActivityDefinitionInput": """id: String!; name: String; fromStates: [String!]!;
        toState: String!; conditions: [String!]!; description: String""",
    "ResourceCreateInput": """workflowId: String!; initialState: String; data: JSON;
        metadata: JSON""",
    "ActivityExecuteInput": "resourceId: String!; activityId: String!; data: JSON",
    "AgentDefinitionGQL": """id: String!; name: String!; description: String!;
        llmProvider: AgentLLMProviderGQL!; llmConfig: LlmConfigGQL!;
        prompts: AgentPromptsGQL!; capabilities: [String!]!; tools: [String!]!;
        createdAt: String!; updatedAt: String!""",
    "AgentLLMProviderGQL": "providerType: String!; model: String!; baseUrl: String",
    "AgentPromptsGQL": "system: String!; userTemplate: String!; contextInstructions: String",
    "LlmConfigGQL": """temperature: Float!; maxTokens: Int; topP: Float;
        frequencyPenalty: Float; presencePenalty: Float; stopSequences: [String!]!""",
    "AgentExecutionGQL": """id: String!; agentId: String!; resourceId: String!;
        stateId: String!; status: AgentExecutionStatusGQL!; inputData: JSON!;
        outputData: JSON; errorMessage: String; startedAt: String!; completedAt: String;
        durationMs: Int; retryCount: Int!""",
    "StateAgentConfigGQL": """id: String!; stateId: String!; agentId: String!;
        llmConfig: LlmConfigGQL; inputMapping: JSON!; outputMapping: JSON!;
        autoActivity: String; schedule: StateAgentScheduleGQL;
        retryConfig: AgentRetryConfigGQL; enabled: Boolean!; createdAt: String!;
        updatedAt: String!""",
    "StateAgentScheduleGQL": """initialDelaySeconds: Int; intervalSeconds: Int;
        maxExecutions: Int""",
    "AgentRetryConfigGQL": """maxAttempts: Int!; backoffSeconds: Int!;
        retryOnErrors: [String!]!""",
    "AgentDefinitionInput": """name: String!; description: String!;
        llmProvider: AgentLLMProviderInput!; llmConfig: LlmConfigInput!;
        prompts: AgentPromptsInput!; capabilities: [String!]!; tools: [String!]!""",
    "AgentLLMProviderInput": """providerType: String!; model: String!; apiKey: String!;
        baseUrl: String""",
    "AgentPromptsInput": """system: String!; userTemplate: String!;
        contextInstructions: String""",
    "LlmConfigInput": """temperature: Float!; maxTokens: Int; topP: Float;
        frequencyPenalty: Float; presencePenalty: Float; stopSequences: [String!]!""",
    "StateAgentConfigInput": """stateId: String!; agentId: String!; llmConfig: LlmConfigInput;
        inputMapping: JSON!; outputMapping: JSON!; autoActivity: String;
        schedule: StateAgentScheduleInput; retryConfig: AgentRetryConfigInput;
        enabled: Boolean!""",
    "StateAgentScheduleInput": """initialDelaySeconds: Int; intervalSeconds: Int;
        maxExecutions: Int""",
    "AgentRetryConfigInput": """maxAttempts: Int!; backoffSeconds: Int!;
        retryOnErrors: [String!]!""",
    "TriggerStateAgentsInput": "resourceId: String!",
    "LlmProviderGQL": """id: ID!; providerType: String!; name: String!; baseUrl: String!;
        models: [LlmModelGQL!]!; healthStatus: LlmProviderHealthGQL!; createdAt: String!;
        updatedAt: String!""",
    "LlmModelGQL": """id: String!; name: String!; maxTokens: Int!; contextWindow: Int!;
        costPerInputToken: Float!; costPerOutputToken: Float!; supportsStreaming: Boolean!;
        supportsFunctionCalling: Boolean!; capabilities: [String!]!""",
    "LlmProviderHealthGQL": """isHealthy: Boolean!; lastCheck: String!; errorRate: Float!;
        averageLatencyMs: Int!; consecutiveFailures: Int!; lastError: String""",
    "LlmResponseGQL": """id: String!; model: String!; choices: [LlmChoiceGQL!]!;
        usage: TokenUsageGQL!; provider: String!; routingInfo: RoutingInfoGQL!""",
    "LlmChoiceGQL": "index: Int!; message: ChatMessageGQL!; finishReason: String",
    "ChatMessageGQL": "role: String!; content: String!; name: String",
    "RoutingInfoGQL": """selectedProvider: String!; routingStrategy: String!; latencyMs: Int!;
        retryCount: Int!; fallbackUsed: Boolean!""",
    "LlmChatCompletionInput": """model: String!; messages: [ChatMessageInput!]!;
        temperature: Float; maxTokens: Int; topP: Float; frequencyPenalty: Float;
        presencePenalty: Float; stop: [String!]; stream: Boolean; user: String;
        projectId: String; requestId: String""",
    "ChatMessageInput": "role: String!; content: String!; name: String",
    "LlmProviderConfigInput": """providerType: String!; name: String!; baseUrl: String!;
        apiKeyId: String!; models: [LlmModelInput!]!""",
    "LlmModelInput": """id: String!; name: String!; maxTokens: Int!; contextWindow: Int!;
        costPerInputToken: Float!; costPerOutputToken: Float!; supportsStreaming: Boolean!;
        supportsFunctionCalling: Boolean!; capabilities: [String!]!""",
    "CostAnalyticsGQL": """totalCost: Float!; totalTokens: Int!; averageCostPerToken: Float!;
        providerBreakdown: JSON!; modelBreakdown: JSON!; dailyCosts: JSON!;
        periodStart: String!; periodEnd: String!""",
    "BudgetInput": """userId: String; projectId: String; limit: Float!; period: String!;
        warningThreshold: Float!""",
    "CostAnalyticsInput": """userId: String; projectId: String; startDate: String!;
        endDate: String!""",
    "McpOAuthInitiation": """authorizationUrl: String!; state: String!; codeVerifier: String;
        provider: McpOAuthProvider!; expiresAt: DateTime!""",
    "McpConnectionTest": """success: Boolean!; responseTimeMs: Int; error: String;
        details: McpConnectionTestDetails!; testedAt: DateTime!""",
    "McpConnectionTestDetails": """dnsResolution: Boolean!; tcpConnection: Boolean!;
        sslHandshake: Boolean; httpStatus: Int; authentication: Boolean;
        capabilities: Boolean""",
    "McpServerConnection": "edges: [McpServerEdge!]!; pageInfo: PageInfo!; totalCount: Int!",
    "McpServerEdge": "node: McpServer!; cursor: String!",
    "McpSessionConnection": """edges: [McpSessionEdge!]!; pageInfo: PageInfo!;
        totalCount: Int!""",
    "McpSessionEdge": "node: McpSession!; cursor: String!",
    "CreateMcpServerInput": """name: String!; description: String; type: McpServerType!;
        tenantId: String!; config: McpServerConfigInput!; auth: McpAuthConfigInput;
        metadata: JSON; tags: [String!]; enabled: Boolean = true""",
    "UpdateMcpServerInput": """name: String; description: String;
        config: McpServerConfigInput; auth: McpAuthConfigInput; metadata: JSON;
        tags: [String!]; enabled: Boolean""",
    "McpServerConfigInput": """endpoint: String; timeoutSeconds: Int = 30;
        maxConnections: Int = 10; ssl: McpSslConfigInput; retry: McpRetryConfigInput;
        rateLimit: McpRateLimitConfigInput; headers: JSON""",
    "McpSslConfigInput": """verify: Boolean = true; caCert: String; clientCert: String;
        clientKey: String""",
    "McpRetryConfigInput": """maxAttempts: Int = 3; initialDelayMs: Int = 1000;
        maxDelayMs: Int = 30000; backoffMultiplier: Float = 2.0; jitterFactor: Float = 0.1""",
    "McpRateLimitConfigInput": """requestsPerSecond: Int = 100; burstSize: Int = 200;
        windowSeconds: Int = 60""",
    "McpAuthConfigInput": "oauth: McpOAuthConfigInput; jwt: McpJwtConfigInput",
    "McpOAuthConfigInput": """providerId: String!; clientId: String!; clientSecret: String!;
        scopes: [String!]!; redirectUri: String!; additionalParams: JSON;
        refreshConfig: McpTokenRefreshConfigInput""",
    "McpJwtConfigInput": """issuer: String!; audience: String; publicKey: String!;
        privateKey: String; algorithm: String = "RS256"; expirationSeconds: Int = 3600;
        customClaims: JSON""",
    "McpTokenRefreshConfigInput": """autoRefresh: Boolean = true;
        refreshThresholdSeconds: Int = 300; maxRefreshAttempts: Int = 3;
        refreshRetryDelaySeconds: Int = 5""",
    "ConfigureMcpOAuthInput": "serverId: ID!; config: McpOAuthConfigInput!",
    "ConfigureMcpJwtInput": "serverId: ID!; config: McpJwtConfigInput!",
    "InitiateMcpOAuthInput": """serverId: ID!; userId: String!; redirectUri: String;
        additionalParams: JSON""",
    "CompleteMcpOAuthInput": """serverId: ID!; userId: String!; code: String!; state: String!;
        codeVerifier: String""",
    "AuthenticateMcpJwtInput": """serverId: ID!; userId: String!; token: String!;
        metadata: JSON""",
    "RegisterMcpCapabilitiesInput": """serverId: ID!; tools: [McpToolInput!]!;
        resources: [McpResourceInput!]!; prompts: [McpPromptInput!]!;
        features: McpServerFeaturesInput!; protocolVersion: String!""",
    "McpToolInput": """name: String!; description: String!; inputSchema: JSON!;
        category: String; metadata: JSON""",
    "McpResourceInput": """uri: String!; name: String!; description: String; type: String!;
        mimeType: String; metadata: JSON""",
    "McpPromptInput": """name: String!; description: String!; template: String!;
        parameters: [McpPromptParameterInput!]!; category: String; metadata: JSON""",
    "McpPromptParameterInput": """name: String!; description: String; type: String!;
        required: Boolean!; defaultValue: JSON; constraints: JSON""",
    "McpServerFeaturesInput": """streaming: Boolean!; fileOperations: Boolean!;
        notifications: Boolean!; batchOperations: Boolean!; maxRequestSize: Int;
        contentTypes: [String!]!""",
    "RuleGQL": """id: String!; name: String!; description: String!;
        condition: RuleConditionGQL!; version: Int!; createdAt: String!; updatedAt: String!;
        createdBy: String; tags: [String!]!""",
    "RuleConditionGQL": """conditionType: String!; field: String; value: JSON;
        substring: String; rules: [RuleGQL!]; rule: RuleGQL; script: String""",
    "RuleEvaluationResultGQL": """ruleId: String!; passed: Boolean!; reason: String!;
        details: JSON; subResults: [RuleEvaluationResultGQL!]!""",
    "RuleInput": """name: String!; description: String!; condition: RuleConditionInput!;
        tags: [String!]""",
    "RuleConditionInput": """conditionType: String!; field: String; value: JSON;
        substring: String; rules: [RuleConditionInput!]; rule: RuleConditionInput;
        script: String""",
    "RuleEvaluationInput": "ruleId: String!; data: JSON!; metadata: JSON",
    "NatsResourceGQL": """id: ID!; workflowId: String!; state: String!; data: JSON!;
        metadata: JSON!; createdAt: String!; updatedAt: String!;
        history: [HistoryEventGQL!]!; natsSequence: String; natsTimestamp: String;
        natsSubject: String; activityHistory: [ActivityRecordGQL!]!""",
    "ActivityRecordGQL": """fromState: String!; toState: String!; activityId: String!;
        timestamp: String!; triggeredBy: String; natsSequence: String; metadata: JSON""",
    "CreateWorkflowInstanceInput": """workflowId: String!; initialData: JSON; metadata: JSON;
        triggeredBy: String""",
    "ExecuteActivityWithNatsInput": """resourceId: String!; activityId: String!;
        newState: String!; triggeredBy: String; data: JSON""",
    "NatsResourceEventGQL": """eventType: ResourceEventType!; resource: NatsResourceGQL!;
        subject: String!; sequence: String!; timestamp: String!; activity: String;
        previousState: String; metadata: JSON""",
}

ENUMS: Mapping[str, str] = {
    "StateType": "NORMAL INITIAL TERMINAL ERROR WAITING REVIEW",
    "WorkflowEventType": """RESOURCE_CREATED RESOURCE_STATE_CHANGED ACTIVITY_EXECUTED WORKFLOW_UPDATED
        AGENT_TRIGGERED""",
    "AgentExecutionEventType": "STARTED PROGRESS COMPLETED FAILED CANCELLED LOG RETRY",
    "AgentExecutionStatusGQL": "PENDING RUNNING COMPLETED FAILED TIMEOUT CANCELLED",
    "LlmStreamEventType": "STREAM_START CONTENT_DELTA STREAM_END STREAM_ERROR TOKEN FUNCTION_CALL",
    "CostEventType": "COST_INCURRED BUDGET_WARNING BUDGET_EXHAUSTED BUDGET_RESET CREDIT_APPLIED",
    "McpServerStatus": "ONLINE OFFLINE STARTING STOPPING ERROR UNKNOWN",
    "McpSessionEventType": "CREATED REFRESHED EXPIRED REVOKED ERROR",
    "McpSessionStatus": "ACTIVE EXPIRED REVOKED PENDING",
    "McpAuthMethod": "OAUTH JWT NONE",
    "McpServerType": "LOCAL REMOTE",
    "McpHealthStatus": "HEALTHY UNHEALTHY UNKNOWN",
    "McpOAuthProviderType": "GITLAB GITHUB GOOGLE MICROSOFT CUSTOM",
    "ResourceEventType": "CREATED STATE_CHANGED DATA_UPDATED METADATA_UPDATED DELETED",
}

UNIONS: Mapping[str, str] = {
    "McpAuthConfig": "McpOAuthConfig McpJwtConfig",
}
